"""Intervals in which clients are there, checked and sorted into one table."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Intervals", "table"]


class Intervals(NamedTuple):
    """Half-open intervals [begin, end) of all clients, sorted by client and begin; those of client k are start[k] to start[k + 1] - 1."""

    start: np.ndarray  # int32 [clients + 1]
    begin: np.ndarray  # float [intervals]
    end: np.ndarray  # float [intervals]
    period: np.ndarray  # float [clients]: after so long a client's intervals repeat; inf: never
    again: bool = False  # whether clients beyond the table have those of id modulo the number of clients; else they have none


def table(where: str, rows: Iterable[tuple[Any, Any, Any, str]], repeat: float | None = None) -> Intervals:
    """Make the table of (client, from, to, its place in words).

    Args:
        where: the source, for errors.
        repeat: after so long every client's intervals repeat.

    Raises:
        ValueError: naming the place: clients that are no whole numbers from 0 on, times that are negative or no numbers, intervals that are
            empty or reversed, overlap, or end after `repeat`; and for no intervals.
    """
    found = [_checked(where, *row) for row in rows]
    if not found:
        raise ValueError(f"trace: {where} has no interval: give each client one at least")
    id = np.array([row[0] for row in found])
    begin, end = (np.array([row[i] for row in found]) for i in (1, 2))
    if repeat is not None and end.max() > repeat:
        raise ValueError(f"trace: repeat={repeat:g} is before {end.max():g}, where an interval of {where} ends: raise it")
    order = np.lexsort((begin, id))
    id, begin, end = id[order], begin[order], end[order]
    overlap = np.flatnonzero((id[1:] == id[:-1]) & (begin[1:] < end[:-1]))
    if len(overlap):
        i = overlap[0]
        raise ValueError(
            f"trace: {where}, {found[order[i + 1]][3]}: client {id[i]} has the intervals [{begin[i]:g}, {end[i]:g}) and "
            f"[{begin[i + 1]:g}, {end[i + 1]:g}), which overlap: join them"
        )
    start = np.searchsorted(id, np.arange(id[-1] + 2)).astype(np.int32)
    return Intervals(start, begin, end, np.full(len(start) - 1, np.inf if repeat is None else repeat))


def _checked(where: str, client: Any, begin: Any, end: Any, place: str) -> tuple[int, float, float, str]:
    """Return a row's numbers, or refuse it."""
    try:
        id, begin, end = int(client), float(begin), float(end)
        if isinstance(client, float) and client != id:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"trace: {where}, {place}: expected a client's number and two times, got {client!r}, {begin!r}, {end!r}") from None
    if not 0 <= id < 2**31 - 1:
        raise ValueError(f"trace: {where}, {place}: client {id} is no client: ids are counted from 0")
    if not 0 <= begin < np.inf or np.isnan(end):
        raise ValueError(f"trace: {where}, {place}: client {id} has the times {begin:g} and {end:g}: they must be numbers from 0 on")
    if end <= begin:
        raise ValueError(f"trace: {where}, {place}: client {id} has the interval [{begin:g}, {end:g}), whose end is not after its begin")
    return id, begin, end, place
