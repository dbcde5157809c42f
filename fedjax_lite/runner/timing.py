"""Where a run's time went, by parts, with compilation apart; and how busy the lanes were."""

import heapq
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Algorithm

__all__ = ["Stopwatch", "lanes_of", "made_by", "useful"]

COMPILING = "/jax/core/compile/"  # before the names of jax's events: tracing, lowering, compiling
MOST = 100_000  # clients whose rounds are laid out again, at most, in rounds that are taken evenly


class Stopwatch:
    """Seconds by part: each lap goes to a part, but for the time in it that jax traced and compiled, which goes to "compile".

    Use it as a context, in which it listens to jax; the first lap begins there.

    >>> with Stopwatch() as watch:
    ...     watch.lap("rounds")
    >>> list(watch.seconds)
    ['compile', 'rounds']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"compile": 0.0}
        self._compiled: list[tuple[float, float]] = []  # beginning and end, by the wall clock
        self._since = time.time()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to a part."""
        now = time.time()
        compiled, self._compiled = _covered(self._compiled, self._since, now), []
        self.seconds["compile"] += compiled
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since - compiled
        self._since = now

    def __enter__(self) -> "Stopwatch":
        self._since = time.time()
        jax.monitoring.register_event_time_span_listener(self._heard)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._heard)

    def _heard(self, event: str, start: float, end: float, **labels: Any) -> None:
        """Note when jax compiled."""
        if event.startswith(COMPILING):
            self._compiled.append((start, end))


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


def lanes_of(algorithm: Algorithm, state: Any, data: Any, cohort: Any) -> int | None:
    """Return how many clients train at once on a device; None where the algorithm does not tell, or has lanes of several kinds."""
    if algorithm.layout is None:
        return None
    lanes = jax.eval_shape(algorithm.layout.stacks, state, data, cohort)["lanes"]
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(lanes)}
    return rows.pop() if len(rows) == 1 else None


def useful(steps: np.ndarray, lanes: int, devices: int) -> dict[str, Any]:
    """Tell how much of what lanes did in some rounds was of use.

    share = sum of clients' steps / (devices x lanes x steps of the device that was busy longest)

    The clients of a round are dealt over devices and lanes as engines deal them, the longest first, and all wait for the last.

    Args:
        steps: `[rounds, clients]`, the local steps that each client of a cohort needed; 0 in an empty slot.
        lanes: on each device.
        devices: how many there are.

    Returns:
        "share" (None without any step), "needed", "made", in how many "rounds", of which "lanes" and "devices".

    >>> useful(np.array([[4, 2, 2], [1, 1, 0]]), lanes=2, devices=1)["share"]
    1.0
    """
    rounds = np.unique(np.linspace(0, len(steps) - 1, max(1, min(len(steps), MOST // max(steps.shape[1], 1)))).astype(int))
    needed = int(steps[rounds].sum(dtype=np.int64))
    made = sum(devices * lanes * made_by([int(x) for x in steps[round] if x > 0], lanes, devices, steps.shape[1]) for round in rounds)
    known = {"needed": needed, "made": made, "rounds": len(rounds), "lanes": lanes, "devices": devices}
    return {"share": needed / made if made else None} | known


def made_by(steps: Sequence[int], lanes: int, devices: int, slots: int) -> int:
    """Return how many steps pass until the last client is done.

    Args:
        steps: of each client.
        lanes, devices: to each device with fewest steps and a slot left, the longest client first; there to the first lane that is free.
        slots: of the cohort; a device has as many as another, rounded up.

    >>> made_by([9, 5, 1], lanes=1, devices=2, slots=3), made_by([3, 2, 2, 1], lanes=2, devices=1, slots=4)
    (9, 4)
    """
    order, each = sorted(steps, reverse=True), -(-slots // devices)
    loads, counts = [0] * devices, [0] * devices
    free = [[0] * lanes for _ in range(devices)]
    for step in order:
        device = min((k for k in range(devices) if counts[k] < each), key=lambda k: loads[k])
        loads[device], counts[device] = loads[device] + step, counts[device] + 1
        heapq.heapreplace(free[device], free[device][0] + step)
    return max((max(lane) for lane in free), default=0)
