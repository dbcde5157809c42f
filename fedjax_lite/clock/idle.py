"""Who is started next: the clients that wait to be asked, in an order, where a law of availability lets them be there."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

There = Callable[[int, float], bool]  # client, time -> whether it can be reached
TRIES = 128  # idle clients that are asked at one time before the server gives up and waits
BLOCK = 1 << 15  # draws made at once: one by one they would take most of the time


class Idle(NamedTuple):
    """The clients that do not train."""

    take: Callable[[float], int]  # time -> a client, who is idle no longer; -1 if nobody is there
    give: Callable[[Sequence[int]], None]  # these clients are idle again
    anyone: Callable[[], bool]  # whether there are idle clients


def idle(order: str, ids: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, there: There | None) -> Idle:
    """Make the idle clients `ids`, who are chosen in an order.

    Raises:
        ValueError: for an unknown order.
    """
    if order == "uniform":
        return _uniform(ids.tolist(), rng, there)
    if order == "queue":
        return _queue(ids.tolist(), there)
    if order == "examples":
        return _by_examples(ids, sizes, rng, there)
    raise ValueError(f'arrivals: order must be "uniform", "queue" or "examples", got {order!r}')


def _uniform(waiting: list[int], rng: np.random.Generator, there: There | None) -> Idle:
    """Choose uniformly among those who are there."""
    draw = _uniforms(rng).__next__

    def take(t: float) -> int:
        left = len(waiting)
        if not left:
            return -1
        place = int(draw() * left)
        k = waiting[place]
        waiting[place] = waiting[-1]
        waiting.pop()
        return k

    def take_there(t: float) -> int:
        assert there is not None
        left = len(waiting)
        for i in range(min(left, TRIES)):  # each is asked once
            place = i + int(draw() * (left - i))
            k = waiting[place]
            waiting[place] = waiting[i]
            if there(k, t):
                waiting[i] = waiting[-1]
                waiting.pop()
                return k
            waiting[i] = k
        return -1

    return Idle(take if there is None else take_there, waiting.extend, lambda: bool(waiting))


def _queue(ids: list[int], there: There | None) -> Idle:
    """Choose the one who has waited longest of those who are there."""
    waiting = deque(ids)

    def take(t: float) -> int:
        for place, k in enumerate(islice(waiting, TRIES)):
            if there is None or there(k, t):
                del waiting[place]
                return k
        return -1

    return Idle(take, waiting.extend, lambda: bool(waiting))


def _by_examples(ids: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, there: There | None) -> Idle:
    """Choose among those who are there with a probability proportional to their examples."""
    up_to = np.cumsum(sizes[ids], dtype=np.float64)
    known, waiting = ids.tolist(), set(ids.tolist())
    draw, decide = _places(rng, up_to).__next__, _uniforms(rng).__next__

    def take(t: float) -> int:
        for _ in range(TRIES):
            k = known[draw()]
            if k in waiting and (there is None or there(k, t)):
                waiting.remove(k)
                return k
        left = np.array(sorted(k for k in waiting if there is None or there(k, t)), np.int64)
        if not left.size:
            return -1
        up_to = np.cumsum(sizes[left], dtype=np.float64)
        k = int(left[np.searchsorted(up_to, decide() * up_to[-1], side="right")])
        waiting.remove(k)
        return k

    return Idle(take, waiting.update, lambda: bool(waiting))


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Draw from [0, 1), in blocks."""
    while True:
        yield from rng.random(BLOCK).tolist()


def _places(rng: np.random.Generator, up_to: np.ndarray) -> Iterator[int]:
    """Draw places with a probability that cumulative weights give, in blocks."""
    while True:
        yield from np.searchsorted(up_to, rng.random(BLOCK) * up_to[-1], side="right").tolist()
