"""Arrivals by a plain loop over all clients at every event, without a heap: the oracle of `fl.clock.arrivals`."""

from collections.abc import Callable
from typing import NamedTuple


class Client(NamedTuple):
    ends: float
    number: int  # of its start
    id: int
    version: int


def arrived(durations, take: Callable, give: Callable, *, concurrency, buffer, rounds, window=10**9, there=None, pause=60.0):
    """Lists of ids, ages, seconds, lost and too old, by step; `take` chooses an idle client who is there at a time (-1: nobody)."""
    running, waiting, rows, starts = [], [], [], 0
    now, version, lost, too_old, asks_at = 0.0, 0, 0, 0, None
    somebody_idle = len(durations)
    while len(rows) < rounds:
        while len(running) < concurrency:  # free slots
            k = take(now)
            if k < 0:
                break
            running.append(Client(now + durations[k], starts, k, version))
            starts, somebody_idle = starts + 1, somebody_idle - 1
        if len(running) < concurrency and somebody_idle and asks_at is None:
            asks_at, starts = now + pause, starts + 1
        now = min([client.ends for client in running] + ([] if asks_at is None else [asks_at]))
        if asks_at == now:
            asks_at = None
        for client in sorted((client for client in running if client.ends == now), key=lambda client: client.number):
            running.remove(client)
            if there is not None and not there(client.id, now):
                lost += 1
                give([client.id])
                somebody_idle += 1
            elif version - client.version >= window:
                too_old += 1
                give([client.id])
                somebody_idle += 1
            else:
                waiting.append((client.id, version - client.version))
            if len(waiting) == buffer:
                rows.append(([k for k, _ in waiting], [age for _, age in waiting], now, lost, too_old))
                give([k for k, _ in waiting])
                somebody_idle += buffer
                waiting, version, lost, too_old = [], version + 1, 0, 0
                if len(rows) == rounds:
                    break
    return [list(column) for column in zip(*rows, strict=True)]


def in_tiers(durations, groups, takes, gives, *, buffer, rounds, there=None, pause=60.0):
    """The same for rounds of tiers, and whose they are."""
    rounds_of = [(0.0, tier, tier, 0.0, []) for tier in range(len(groups))]
    since, rows, starts, lost = [0] * len(groups), [], len(groups), 0
    while len(rows) < rounds:
        now = min(ends for ends, *_ in rounds_of)
        ending = sorted((each for each in rounds_of if each[0] == now), key=lambda each: each[1])
        for _, _, tier, began, chosen in ending:
            reports = [k for k in chosen if there is None or there(k, began + durations[k])]
            lost += len(chosen) - len(reports)
            if reports and len(rows) < rounds:
                rows.append((reports, len(rows) - since[tier], now, lost, tier))
                lost, since[tier] = 0, len(rows)
            gives[tier](chosen)
        for each in ending:
            tier, chosen = each[2], []
            rounds_of.remove(each)
            while len(chosen) < buffer and (k := takes[tier](now)) >= 0:
                chosen.append(k)
            reporting = [k for k in chosen if there is None or there(k, now + durations[k])] or chosen
            rounds_of.append((max([now + durations[k] for k in reporting], default=now + pause), starts, tier, now, chosen))
            starts += 1
    return [list(column) for column in zip(*rows, strict=True)]
