"""A grid: axes of values, and their combinations, the cells."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite.report.target import OF_HOURS, OF_ROUNDS

COLUMNS = ("metric", "mean", "low", "high", "seeds", "diverged", "rank", *OF_ROUNDS, *OF_HOURS)  # of a table, beside the grid's names
RESERVED = ("key", "seed", *COLUMNS)  # names that a grid cannot use


class Axis(NamedTuple):
    """One axis of a study, as plain data: the names that change along it, and a row of their values for each place."""

    names: tuple[str, ...]  # more than one where values change together
    rows: tuple[tuple[Any, ...], ...]  # a number or text for each name

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a text for each row.

        >>> Axis(("rate", "name"), ((0.1, "sgd"), (0.001, "adam"))).labels
        ('0.1, sgd', '0.001, adam')
        """
        return tuple(", ".join(text_of(value) for value in row) for row in self.rows)


def axes_of(grid: Mapping[Any, Any]) -> tuple[tuple[Axis, ...], list[list[dict[str, Any]]]]:
    """Return a grid's axes as plain data, and for each axis its rows as dicts name -> value.

    Args:
        grid: name -> values, or name -> {label: value} for values without a short text; a tuple of names -> rows of values.

    >>> axes, choices = axes_of({"rate": [0.1, 1], ("a", "b"): [(1, "x"), (2, "y")]})
    >>> axes[1], choices[1][0]
    (Axis(names=('a', 'b'), rows=((1, 'x'), (2, 'y'))), {'a': 1, 'b': 'x'})
    """
    names = [name for key in grid for name in (key if isinstance(key, tuple) else (key,))]
    for name in names:
        if not isinstance(name, str) or not name or name in RESERVED:
            raise ValueError(
                f"study: a name in the grid must be that of an argument beside the key, and not of a table's column, got {name!r}"
            )
        if names.count(name) > 1:
            raise ValueError(f"study: the grid has {name!r} twice")
    axes = [_axis(key, values) for key, values in grid.items()]
    return tuple(axis for axis, _ in axes), [rows for _, rows in axes]


def _axis(key: Any, values: Any) -> tuple[Axis, list[dict[str, Any]]]:
    """Check one entry of a grid; return its axis, and its rows as dicts name -> value."""
    names, where = key if isinstance(key, tuple) else (key,), f"study: grid[{key!r}]"
    labelled = isinstance(values, Mapping) and len(names) == 1
    array = isinstance(values, np.ndarray | jax.Array) and np.ndim(values) > 0
    if not (labelled or array or isinstance(values, Sequence)) or isinstance(values, str):
        raise ValueError(f"{where} must be a sequence of values, got {values!r}")
    rows = [(value,) if len(names) == 1 else value for value in (values.values() if labelled else values)]
    if not rows:
        raise ValueError(f"{where} is empty: give at least one value, or leave the name out")
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(names):
            raise ValueError(f"{where} needs rows of {len(names)} values, got {row!r}")
    rows = [tuple(python(value) for value in row) for row in rows]
    if any(isinstance(value, float) and math.isnan(value) for row in rows for value in row):
        raise ValueError(f"{where} has the value nan: give a number")
    labels = [(str(label),) for label in values] if labelled else [tuple(plain_of(value) for value in row) for row in rows]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{where} has {', '.join(map(text_of, label))} twice; values that read alike need a dict label -> value")
    return Axis(tuple(names), tuple(labels)), [dict(zip(names, row, strict=True)) for row in rows]


def cells_of(choices: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return every combination of the axes' rows as a dict name -> value; the last axis changes fastest.

    >>> cells_of([[{"a": 1}, {"a": 2}], [{"b": 3}]])
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*choices)]


def names_of(axes: Sequence[Axis]) -> list[str]:
    """Return a text for each cell, in the order of `cells_of`.

    >>> names_of([Axis(("rate",), ((0.1,), (1,))), Axis(("name",), (("sgd",),))])
    ['rate=0.1, name=sgd', 'rate=1, name=sgd']
    """
    rows = itertools.product(*([", ".join(f"{n}={text_of(x)}" for n, x in zip(a.names, row, strict=True)) for row in a.rows] for a in axes))
    return [", ".join(row) for row in rows]


def python(value: Any) -> Any:
    """Convert a scalar of NumPy or JAX to Python's number; return another value as it is."""
    scalar = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
    return value.item() if scalar and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) else value


def count_of(argument: str, value: Any) -> int:
    """Return a whole number of at least 1, from Python, NumPy or JAX, as an int.

    Raises:
        ValueError: for another `value`; names the `argument`.
    """
    value = python(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"study: {argument} must be a whole number of at least 1, got {value!r}")
    return value


def plain_of(value: Any) -> Any:
    """Return a number or text as it is, a function's name, another object's repr if short, else its type's name.

    >>> plain_of(0.1), plain_of((200, 200)), plain_of(max)
    (0.1, '(200, 200)', 'max')
    """
    if isinstance(value, str | int | float):
        return value
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    text = repr(value)
    return text if len(text) <= 40 and " at 0x" not in text else type(value).__name__


def text_of(value: Any) -> str:
    """Write a number or text for a person, a float to 6 digits.

    >>> text_of(0.30000000000000004), text_of(1000000)
    ('0.3', '1000000')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)
