"""A synthetic trace of phones, which can take part while they charge."""

from typing import Any

import numpy as np

from fedjax_lite.availability.intervals import Intervals, table
from fedjax_lite.availability.words import BITS, seeds, words

__all__ = ["phones"]

HOUR, DAYS, PHONES = 3600.0, 2, 1000
NIGHTLY, TOPPED_UP = 0.9, 0.6  # probabilities of a night at the charger, and of a top-up by day


def phones() -> Intervals:
    """Make two days of a thousand phones in seconds from midnight on, repeated.

    A phone charges in the night of the first day, and in the second with probability 0.9: from its own hour of 22 to 24, half an hour
    sooner or later, for five to nine hours. With probability 0.6 a day it is topped up for 20 to 90 minutes that begin between 10 and 20
    o'clock. All numbers are uniform, and the same everywhere.
    """
    ids = np.arange(PHONES)
    rows: list[tuple[Any, Any, Any, str]] = []
    habit = 22 + 2 * _uniform(ids, 0)
    for day in range(DAYS):
        jitter, length, comes = (_uniform(ids, 10 * day + stream) for stream in (1, 2, 3))
        begin = 24 * day + habit + jitter - 0.5
        rows += _intervals(ids, begin, begin + 5 + 4 * length, (comes < NIGHTLY) | (day == 0))
        hour, length, comes = (_uniform(ids, 10 * day + stream) for stream in (4, 5, 6))
        begin = 24 * day + 10 + 10 * hour
        rows += _intervals(ids, begin, begin + (20 + 70 * length) / 60, comes < TOPPED_UP)
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
