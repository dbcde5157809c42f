"""The event loop of the usual case: everyone can be reached, no two arrive at once, and no upload is too old."""

from heapq import heapify, heapreplace

import numpy as np

from fedjax_lite.clock.table import Arrivals, table
from fedjax_lite.engine.pace import Asynchrony

__all__ = ["play_steadily"]

BLOCK = 1 << 13  # events whose draws are made at once, and after which ages are looked at


def play_steadily(
    durations: np.ndarray, ids: np.ndarray, rng: np.random.Generator, how: Asynchrony, *, concurrency: int, rounds: int
) -> Arrivals | None:
    """Make the table of `play` in the order "uniform", with the same draws; None where a case is not this one, for `play` to make it.

    Each arrival frees one slot, which the next client takes at once. So the number of idle clients is known before every draw: one less
    after each upload that waits in the buffer, all again after a step. All places are drawn in NumPy, and the loop only moves clients.
    """
    seconds, waiting, buffer = durations.tolist(), ids.tolist(), how.buffer
    idle = len(waiting) - concurrency + 1  # clients of whom the first after a step is drawn
    if idle < buffer:
        return None  # a slot may find nobody
    heap = [(0.0, -1, 0)]  # (time, client, version) of those who train; at first also the slot that has just become free
    at_start = np.arange(len(waiting), idle, -1)
    for place, last in zip(_places(rng, at_start), (at_start - 1).tolist(), strict=True):
        k, waiting[place] = waiting[place], waiting[last]
        heap.append((seconds[k], k, 0))
    del waiting[idle:]
    heapify(heap)
    t, version, full = 0.0, 0, idle - buffer
    times, blocks = [], []
    lasts, at_once = list(range(idle - 1, full - 1, -1)), max(1, BLOCK // buffer)
    while version < rounds:
        steps = min(at_once, rounds - version)
        clients: list[int] = []
        versions: list[int] = []
        for place, last in zip(_places(rng, np.tile(np.arange(idle, full, -1), steps)), lasts * steps, strict=True):
            k = waiting[place]
            waiting[place] = waiting[last]  # from here on nobody waits at `last`
            heapreplace(heap, (t + seconds[k], k, version))
            before = t
            t, k, started = heap[0]
            if t == before:
                return None
            clients.append(k)
            versions.append(started)
            if last == full:
                waiting[full:] = clients[-buffer:]
                times.append(t)
                version += 1
        block = np.array([clients, versions], np.int32).reshape(2, steps, buffer)
        block[1] = np.arange(version - steps, version)[:, None] - block[1]  # ages
        if block[1].max() >= how.window:
            return None
        blocks.append(block)
    clients_of, ages = np.concatenate(blocks, axis=1)
    return table(clients_of, ages, times)


def _places(rng: np.random.Generator, idle: np.ndarray) -> list[int]:
    """Draw a place among the first `idle`, for each number of idle clients."""
    return (rng.random(len(idle)) * idle).astype(int).tolist()
