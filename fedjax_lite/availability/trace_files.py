"""Read traces of availability: tables of intervals, and FedScale's pickles."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.availability.intervals import Intervals, table
from fedjax_lite.data.formats.unpickle import unpickle

__all__ = ["read_trace"]

COLUMNS = ("client", "from", "to")


def read_trace(path: Path, repeat: float | None) -> Intervals:
    """Read a CSV with the columns client, from and to, or a pickle of FedScale.

    Raises:
        ValueError: naming the file, and the line or the client.
        OSError: for a file that cannot be read.
    """
    raw = path.read_bytes()
    if not raw.strip():
        raise ValueError(f"trace: {path} is empty: its first line must be {','.join(COLUMNS)}")
    if raw[:1] == b"\x80":
        return _of_fedscale(unpickle(raw, path), str(path), repeat)
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"trace: {path} is neither text nor a pickle: write a CSV with the columns {', '.join(COLUMNS)}") from None
    return table(str(path), _rows(path, lines), repeat)


def _rows(path: Path, lines: list[str]) -> Iterator[tuple[Any, Any, Any, str]]:
    """Yield client, from, to and the line of each row of a CSV."""
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader)]
    if missing := [name for name in COLUMNS if name not in header]:
        raise ValueError(
            f"trace: {path} has no column {missing[0]!r}: its first line must be {','.join(COLUMNS)}, got {','.join(header)[:80]}"
        )
    places = [header.index(name) for name in COLUMNS]
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"trace: {path}, line {reader.line_num}: {len(row)} values for {len(header)} columns")
        client, begin, end = (row[place] for place in places)
        yield client, begin, end, f"line {reader.line_num}"


def _of_fedscale(held: Any, path: str, repeat: float | None) -> Intervals:
    """Make the table of {client: {"active", "inactive", "finish_time"}}, in the file's order, without clients that have no interval."""
    if not isinstance(held, dict) or not held:
        raise ValueError(f"trace: {path} is a pickle, and no trace of FedScale: a dict from client to its active and inactive times")
    rows: list[tuple[Any, Any, Any, str]] = []
    periods: list[float] = []
    for client, one in held.items():
        active, inactive, finish = _times(client, one, path)
        if active:
            place = f"client {client}"
            rows += [(len(periods), *each, place) for each in zip(active, inactive, strict=True)]
            periods.append(finish if repeat is None else repeat)
    found = table(path, rows)
    return found._replace(period=np.array(periods, float), again=True)


def _times(client: Any, one: Any, path: str) -> tuple[list[Any], list[Any], float]:
    """Return one client's begins, ends and period."""
    try:
        active, inactive, finish = list(one["active"]), list(one["inactive"]), float(one["finish_time"])
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"trace: {path}, client {client}: expected lists active and inactive and a finish_time") from None
    if len(active) == len(inactive) + 1:
        inactive.append(finish)  # it stays to the end
    if len(active) != len(inactive) or not 0 < finish < math.inf:
        raise ValueError(
            f"trace: {path}, client {client}: {len(active)} active and {len(inactive)} inactive times, finish_time {finish:g}: "
            "there must be as many of both, and a time to repeat after"
        )
    return active, inactive, finish
