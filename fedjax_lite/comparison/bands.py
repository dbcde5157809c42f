"""The bands in which a configuration expects its numbers: the table [expected]."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fedjax_lite.refuse import is_number

__all__ = ["EXAMPLE", "Band", "bands_of"]

EXAMPLE = "test_accuracy = [0.9, 1.0]"


class Band(NamedTuple):
    """What a metric is expected to be."""

    metric: str
    low: float
    high: float
    round: int | None = None  # at that round; None: at the end
    of: tuple[tuple[str, Any], ...] = ()  # of a study: axis -> value of the cells that are meant


def bands_of(expected: Any) -> list[Band]:
    """Read a table [expected]: metric = [low, high]; round_N = {...} at a round; cells = [{ of = {...}, ... }] of a study.

    Raises:
        ValueError: naming the entry.

    >>> bands_of({"test_accuracy": [0.9, 1], "round_10": {"test_loss": [0, 2.5]}})[1]
    Band(metric='test_loss', low=0.0, high=2.5, round=10, of=())
    """
    if not isinstance(expected, Mapping) or not expected:
        raise ValueError(f"expected must be a table of bands, such as {EXAMPLE}, got {expected!r}")
    found: list[Band] = []
    for name, value in expected.items():
        number = str(name).removeprefix("round_")
        if name == "cells":
            found += _of_cells(value)
        elif isinstance(value, Mapping) and number.isdecimal() and int(number):
            found += [band._replace(round=int(number)) for band in bands_of(value)]
        else:
            found.append(_band(str(name), value))
    return found


def _band(metric: str, value: Any) -> Band:
    """Read one band."""
    pair = value if isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)) else None
    if pair is None or not pair[0] <= pair[1]:
        raise ValueError(f"expected.{metric} must be a band [low, high], such as {EXAMPLE}, got {value!r}")
    return Band(metric, float(pair[0]), float(pair[1]))


def _of_cells(cells: Any) -> list[Band]:
    """Read the bands of a study's cells."""
    if not isinstance(cells, list) or not all(isinstance(cell, Mapping) and isinstance(cell.get("of"), Mapping) for cell in cells):
        raise ValueError(f'expected.cells must be a list of tables, such as {{ of = {{ aggregator = "mean" }}, {EXAMPLE} }}, got {cells!r}')
    return [
        band._replace(of=tuple(cell["of"].items()))
        for cell in cells
        for band in bands_of({name: value for name, value in cell.items() if name != "of"})
    ]
