"""The budget of a run or a study: whether another piece of work would end in time."""

import time
from typing import Any

from fedjax_lite.refuse import is_number

__all__ = ["Deadline"]


class Deadline:
    """Foretell from the longest piece of work so far whether another one would end in time.

    Args:
        budget: seconds from now; None: any time is in time.

    Raises:
        ValueError: for a budget that is no positive number.
    """

    def __init__(self, budget: Any) -> None:
        if budget is not None and not (is_number(budget) and budget > 0):
            raise ValueError(f"budget must be a number of seconds above 0, or None, got {budget!r}")
        self._started = self._last = time.monotonic()
        self._ends = None if budget is None else self._last + float(budget)
        self._laps: list[float] = []

    def lap(self) -> None:
        """Note that a piece of work has ended."""
        now = time.monotonic()
        self._laps.append(now - self._last)
        self._last = now

    def passed(self) -> bool:
        """Return whether another piece of work, as long as the longest after the first, which compiled, would end too late."""
        longest = max(self._laps[1:] or self._laps, default=0.0)
        return self._ends is not None and time.monotonic() + longest > self._ends

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._started
