"""Where a run's time went, by parts, with compilation apart."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fedjax_lite.runner.occupancy import Occupancy

__all__ = ["Stopwatch"]

COMPILING = "/jax/core/compile/"  # before the names of jax's events: tracing, lowering, compiling


class Stopwatch:
    """Seconds by part: each lap goes to a part, but for the time in it that jax traced and compiled, which goes to "compile".

    Use it as a context, in which it listens to jax. What came before is the part "start".

    Args:
        lanes: what is told of them.
        before: seconds that have passed already.

    >>> with Stopwatch(Occupancy(lanes=1, devices=1)) as watch:
    ...     watch.rounds(np.array([[2, 3]]))
    >>> list(watch.seconds), watch.summary()["rounds"]
    (['compile', 'start', 'rounds'], 1)
    """

    def __init__(self, lanes: Occupancy, before: float = 0.0) -> None:
        self.seconds: dict[str, float] = {"compile": 0.0}
        self._lanes, self._rounds = lanes, 0
        self._compiled: list[tuple[float, float]] = []  # beginning and end, by the wall clock
        self._since = time.time() - before

    def lap(self, part: str) -> None:
        """Add the time since the last lap to a part."""
        now = time.time()
        compiled, self._compiled = _covered(self._compiled, self._since, now), []
        self.seconds["compile"] += compiled
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since - compiled
        self._since = now

    def rounds(self, steps: np.ndarray) -> None:
        """Add the time since the last lap to rounds of so many local steps, `[rounds, clients]`."""
        self.lap("rounds")
        self._rounds += len(steps)
        self._lanes.add(steps)

    def summary(self) -> dict[str, Any]:
        """Return seconds by part, the number of rounds, and how busy the lanes were, for a run's summary."""
        seconds = {part: round(each, 3) for part, each in self.seconds.items()}
        return {"seconds": seconds, "rounds": self._rounds, "lanes": self._lanes.summary()}

    def __enter__(self) -> "Stopwatch":
        self.lap("start")
        jax.monitoring.register_event_time_span_listener(self._heard)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._heard)

    def _heard(self, event: str, start_time: float, end_time: float, **labels: Any) -> None:
        """Note when jax compiled."""
        if event.startswith(COMPILING):
            self._compiled.append((start_time, end_time))


def _covered(spans: Sequence[tuple[float, float]], first: float, last: float) -> float:
    """Return how much of the time from first to last some span covers; spans may overlap.

    >>> _covered([(1.0, 3.0), (2.0, 4.0), (8.0, 20.0)], 0.0, 10.0)
    5.0
    """
    total, until = 0.0, first
    for start, end in sorted(spans):
        start, end = max(start, until), min(end, last)
        total, until = total + max(0.0, end - start), max(until, end)
    return total
