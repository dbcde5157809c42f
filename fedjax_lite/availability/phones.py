"""A synthetic trace of phones, which can take part while they charge."""

from typing import Any

import numpy as np

from fedjax_lite.availability.intervals import Intervals, table
from fedjax_lite.availability.words import BITS, seeds, words

__all__ = ["phones"]

HOUR, DAYS, PHONES = 3600.0, 2, 1000
NIGHTLY, TOPPED_UP = 0.9, 0.5  # probabilities of a night at the charger, and of a top-up in a part of the day
PARTS = 3  # of the day between two nights, each with one top-up at most


def phones() -> Intervals:
    """Make two days of a thousand phones in seconds from midnight on, repeated.

    A phone charges in the night of the first day, and in the second with probability 0.9: from its own hour of 22 to 24, half an hour
    sooner or later, for five to nine hours. The hours until its next night are three equal parts, in each of which it is topped up with
    probability 0.5 for 20 to 90 minutes. All numbers are uniform, and the same everywhere. At no time are fewer than 5 % of them there.
    """
    ids = np.arange(PHONES)
    rows: list[tuple[Any, Any, Any, str]] = []
    habit = 22 + 2 * _uniform(ids, 0)
    begins = [24 * day + habit + _uniform(ids, 100 * day + 1) - 0.5 for day in range(DAYS)]
    nexts = [*begins[1:], begins[0] + 24 * DAYS]
    for day, (begin, after) in enumerate(zip(begins, nexts, strict=True)):
        length, comes = (_uniform(ids, 100 * day + stream) for stream in (2, 3))
        end = begin + 5 + 4 * length
        rows += _intervals(ids, begin, end, (comes < NIGHTLY) | (day == 0))
        part = (after - end) / PARTS
        for i in range(PARTS):
            place, length, comes = (_uniform(ids, 100 * day + 10 * (i + 1) + stream) for stream in range(3))
            length = (20 + 70 * length) / 60
            begin = end + i * part + place * (part - length)
            rows += _intervals(ids, begin, begin + length, comes < TOPPED_UP)
    return table("phones", rows, 24 * DAYS * HOUR)._replace(again=True)


def _uniform(ids: np.ndarray, stream: int) -> np.ndarray:
    """Return a uniform number of each phone."""
    return words(seeds(0, stream), ids, np.zeros(1, np.int32)) / 2**BITS


def _intervals(ids: np.ndarray, begin: np.ndarray, end: np.ndarray, comes: np.ndarray) -> list[tuple[Any, Any, Any, str]]:
    """Return the intervals of those who come, from hours; what goes beyond the last day begins the first."""
    found, last = [], 24 * DAYS
    for id, a, b in zip(ids[comes].tolist(), begin[comes].tolist(), end[comes].tolist(), strict=True):
        found += [(id, a * HOUR, min(b, last) * HOUR, "")] if a < last else []
        found += [(id, max(a - last, 0) * HOUR, (b - last) * HOUR, "")] if b > last else []
    return found
