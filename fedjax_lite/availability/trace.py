"""Availability from a trace: intervals in which each client is there."""

import math
import os
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from fedjax_lite.availability.availability import Availability
from fedjax_lite.availability.intervals import Intervals, table
from fedjax_lite.availability.phones import phones
from fedjax_lite.availability.trace_files import read_trace
from fedjax_lite.base import Number
from fedjax_lite.refuse import plain, positive

__all__ = ["trace"]


def trace(source: str | os.PathLike | Any, repeat: Number | None = None, unit: Number = 1.0) -> Availability:
    """Each client is there in the intervals [from, to) of a trace, and never between them.

    Nothing is drawn, so the law's `share` at a time is 1 or 0. An answer costs a binary search in the client's own intervals.

    Args:
        source: a list of (client, from, to); the path of a CSV with the columns client, from and to; the path of a trace of FedScale, a
            pickle of {client: {"active": [...], "inactive": [...], "finish_time": ...}}, each client's times modulo its finish_time; or
            "phones", 1000 synthetic phones that charge by night and a little by day, for two days. In a list and a CSV an id is a client's;
            of the two others client k has row k modulo the number of rows, as in FedScale, and rows without intervals are left out.
        repeat: after so long all intervals repeat; by default a list's and a CSV's never do, and a trace of two days does.
        unit: how much of the trace's time one unit of the clock's is: with rounds of ten minutes and a trace in seconds 600.

    Raises:
        ValueError: naming the source and the line: other columns, no intervals, intervals that overlap or are reversed, times that are
            negative or no numbers; when the law meets a population: a client outside of it, and one that has no interval.
        OSError: for a file that cannot be read.

    >>> import jax.numpy as jnp
    >>> law = trace([(0, 0, 5), (1, 2, 3), (1, 4, 9)])
    >>> [law.there(jnp.arange(2), t).astype(int).tolist() for t in (0, 2, 3, 4, 5)]
    [[1, 0], [1, 1], [1, 0], [1, 1], [0, 1]]
    >>> int(trace("phones", unit=3600).there(jnp.arange(1000), 3).sum()) // 100  # of 1000 at three at night
    9

    Source: Lai et al. 2022, "FedScale", whose traces are of this form; there an index moves by one interval a question, and reads the wrong
    one where questions are far apart, here the time decides.
    """
    for name, value in (("unit", unit), ("repeat", 1 if repeat is None else repeat)):
        positive("trace", name, plain(value))
    unit, held = float(unit), _read(source, None if repeat is None else float(repeat))
    searches = math.ceil(math.log2(np.diff(held.start).max() + 1))

    def there(ids, time):
        return _inside(held, searches, jnp.asarray(ids, jnp.int32), jnp.asarray(time * unit, jnp.result_type(float)))

    check = partial(_check, held)
    return Availability(there, lambda ids, time: there(ids, time).astype(float), lambda population: _on_host(held, unit), check)


def _read(source: Any, repeat: float | None) -> Intervals:
    """Return the table of a source."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.name == "phones" and not path.exists():  # a configuration makes a path of every text
            held = phones()
            return held if repeat is None else table("phones", held_rows(held), repeat)._replace(again=True)
        return read_trace(path, repeat)
    try:
        rows = [(*row, f"interval {i}") for i, row in enumerate(source)]
    except TypeError:
        rows = [()]  # type: ignore[list-item]
    if not all(len(row) == 4 for row in rows):
        raise ValueError(f"trace: source must be a list of (client, from, to), or a path, got {str(source)[:80]}")
    return table("source", rows, repeat)


def held_rows(held: Intervals) -> list[tuple[int, float, float, str]]:
    """Return a table's rows."""
    ids = np.repeat(np.arange(len(held.period)), np.diff(held.start))
    return [(*row, f"interval {i}") for i, row in enumerate(zip(ids.tolist(), held.begin.tolist(), held.end.tolist(), strict=True))]


def _inside(held: Intervals, searches: int, ids: Array, time: Array) -> Bool[Array, "..."]:
    """Return for each id whether a time is in one of its intervals."""
    rows = len(held.period)
    start, begin, end = jnp.asarray(held.start), jnp.asarray(held.begin, time.dtype), jnp.asarray(held.end, time.dtype)
    row = ids % rows if held.again else ids
    known, row = row < rows, jnp.minimum(row, rows - 1)
    period = jnp.asarray(held.period, time.dtype)[row]
    time = jnp.where(jnp.isfinite(period), time % jnp.where(jnp.isfinite(period), period, 1), time)
    first = start[row]

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        right = (low < high) & (begin[jnp.minimum(middle, len(begin) - 1)] <= time)
        return jnp.where(right, middle + 1, low), jnp.where(right, high, middle)

    after, _ = jax.lax.fori_loop(0, searches, halve, (first, start[row + 1]))
    return known & (after > first) & (time < end[jnp.maximum(after - 1, 0)])


def _on_host(held: Intervals, unit: float) -> Callable[[int, float], bool]:
    """Make the host's (id, time) -> bool."""
    start, begin, end, period = (each.tolist() for each in held[:4])
    rows, again = len(period), held.again

    def there(id, time):
        row, time = id % rows if again else id, time * unit
        if row >= rows:
            return False
        time = time % period[row] if period[row] < math.inf else time
        i = bisect_right(begin, time, start[row], start[row + 1]) - 1
        return i >= start[row] and time < end[i]

    return there


def _check(held: Intervals, population: int) -> None:
    """Refuse a population of which a client has no interval, and a trace of clients outside of it."""
    if held.again:
        return
    if len(held.period) > population:
        raise ValueError(
            f"trace: client {len(held.period) - 1} is outside the population, whose ids are 0 to {population - 1}: leave its lines out"
        )
    never = np.flatnonzero(np.diff(held.start, append=held.start[-1:].repeat(population - len(held.period))) == 0)
    if len(never):
        raise ValueError(f"trace: no interval lets client {never[0]} take part: give it one, or leave it out of the population")
