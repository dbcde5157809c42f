"""Tiers: clients of like speed are a tier, whose rounds are synchronous, and the server takes in each tier's round when it ends."""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from fedjax_lite.clock.idle import There, idle
from fedjax_lite.clock.table import MOST, Arrivals, Event, no_step, table
from fedjax_lite.engine.pace import Asynchrony

__all__ = ["play_tiers"]


class _Round(NamedTuple):
    """A round of a tier, on the heap; in the order of ends, then of starts."""

    ends: float
    number: int
    tier: int
    began: float
    chosen: list[int]


def play_tiers(
    durations: np.ndarray,
    ids: np.ndarray,
    sizes: np.ndarray,
    how: Asynchrony,
    *,
    order: str,
    rng: np.random.Generator,
    rounds: int,
    there: There | None = None,
    pause: float = 60.0,
    log: list[Event] | None = None,
) -> Arrivals:
    """Let each tier run rounds of its own: `buffer` of its clients who are there, until the slowest who reports has reported.

    The clients `ids` are sorted by their durations into equal groups. A tier's round starts when its last one ends, from the model that the
    server has then; a tier of whom nobody is there waits for `pause` seconds with that model. A client who is not there when it has
    finished is lost, and a round that all are lost from is no step of the server: the tier's next round has the same model.
    """
    groups = np.array_split(ids[np.argsort(durations[ids], kind="stable")], how.tiers)
    if len(groups[-1]) < how.buffer:
        raise ValueError(
            f"arrivals: a tier has {len(groups[-1])} of {len(ids)} clients with examples, and buffer={how.buffer} of a tier take part in "
            "its round: lower buffer or tiers"
        )
    waiting = [idle(order, group, sizes, rng, there) for group in groups]
    heap = [_Round(0.0, tier, tier, 0.0, []) for tier in range(how.tiers)]
    taken: list[tuple[list[int], int]] = []
    rows: list[tuple[float, int, int]] = []  # time, lost, tier
    since = [0] * how.tiers
    number, lost, turns = how.tiers, 0, 0
    while len(rows) < rounds:
        now, ended = heap[0].ends, []
        while heap and heap[0].ends == now and len(rows) < rounds:  # all of one time, before a round starts
            last = heappop(heap)
            age, reports = len(rows) - since[last.tier], _reporting(last.chosen, last.began, durations, there)
            lost, turns = lost + len(last.chosen) - len(reports), turns + 1
            version = since[last.tier]
            if reports:
                taken.append((reports, age))
                rows.append((now, lost, last.tier))
                lost, turns, since[last.tier] = 0, 0, len(rows)
            if log is not None:
                log += _events(last, reports, durations, version, age, len(rows))
            if last.chosen:
                waiting[last.tier].give(last.chosen)
            ended.append(last.tier)
        if turns > MOST:
            raise ValueError(no_step(now, len(rows), lost, 0))
        for tier in ended:
            chosen: list[int] = []
            while len(chosen) < how.buffer and (k := waiting[tier].take(now)) >= 0:
                chosen.append(k)
            awaited = _reporting(chosen, now, durations, there) or chosen
            heappush(heap, _Round(max([now + durations[k] for k in awaited] or [now + pause]), number, tier, now, chosen))
            number += 1
    times, away, whose = zip(*rows, strict=True)
    return table(*_filled(taken, how.buffer), times, lost=away, tier=whose)


def _reporting(chosen: list[int], began: float, durations: np.ndarray, there: There | None) -> list[int]:
    """Return the clients of a round that are there when they have finished."""
    return [k for k in chosen if there is None or there(k, began + durations[k])]


def _events(last: _Round, reports: list[int], durations: np.ndarray, version: int, age: int, step: int) -> list[Event]:
    """Tell of a round's clients; the last of them who reports completes the server's step."""
    return [
        Event(last.began + durations[k], k, last.began, version, age if k in reports else -1, step if k == (reports or [-1])[-1] else 0)
        for k in last.chosen
    ]


def _filled(taken: list[tuple[list[int], int]], buffer: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and ages `[steps, buffer]`, with empty slots where fewer reported."""
    ids = np.array([reports + [-1] * (buffer - len(reports)) for reports, _ in taken])
    return ids, np.where(ids >= 0, np.array([age for _, age in taken])[:, None], 0)
