"""The server that waits for nobody in particular: clients train at once, and each upload is taken in when it arrives."""

from heapq import heappop, heappush

import numpy as np

from fedjax_lite.clock.idle import Idle, There
from fedjax_lite.clock.table import MOST, Arrivals, Event, no_step, table
from fedjax_lite.engine.pace import Asynchrony

__all__ = ["play"]


def play(
    durations: np.ndarray,
    idle: Idle,
    how: Asynchrony,
    *,
    concurrency: int,
    rounds: int,
    there: There | None = None,
    pause: float = 60.0,
    log: list[Event] | None = None,
) -> Arrivals:
    """Let `concurrency` clients train at once until the server has made `rounds` steps.

    All arrivals of one time are taken in, in the order of their starts, before anyone is started; then each free slot goes to an idle
    client. A client whose upload waits in the buffer is idle again from the server's step on. If nobody idle is there the slot waits, for
    `pause` seconds or the next arrival.
    """
    take, give, buffer, window = idle.take, idle.give, how.buffer, how.window
    seconds: list[float] = durations.tolist()
    heap: list[float] = []  # the times at which somebody arrives
    who: dict[float, list[int]] = {}  # time -> who arrives then, in the order of their starts; -1: free slots ask again
    since = [0] * len(seconds)  # client -> the version that it was given last
    ids: list[int] = []
    ages: list[int] = []
    rows: list[tuple[float, int, int]] = []  # time, lost, dropped
    version = lost = dropped = turns = 0
    free, left, asking = concurrency, buffer, False
    t, most = 0.0, MOST + 100 * len(seconds)

    def arrives(k: int, end: float) -> None:
        if end in who:
            who[end].append(k)
        else:
            who[end] = [k]
            heappush(heap, end)

    while version < rounds:
        while free and (k := take(t)) >= 0:
            since[k] = version
            free -= 1
            arrives(k, t + seconds[k])
        if free and not asking and idle.anyone():
            asking = True
            arrives(-1, t + pause)
        t = heappop(heap)
        for k in who.pop(t):  # all of one time are taken in before anyone is started
            if k < 0:
                asking, turns = False, turns + 1  # this was no client's slot
                continue
            age, done, free = version - since[k], 0, free + 1
            if there is not None and not there(k, t):
                age, lost, turns = -1, lost + 1, turns + 1
                give((k,))
            elif age >= window:
                if how.too_old != "drop":
                    raise ValueError(_too_old(k, t, age, window))
                dropped, turns = dropped + 1, turns + 1
                give((k,))
            else:
                ids.append(k)
                ages.append(age)
                left -= 1
                if not left:
                    rows.append((t, lost, dropped))
                    version = done = version + 1
                    left, lost, dropped, turns = buffer, 0, 0, 0
                    give(ids[-buffer:])
            if log is not None:
                log.append(Event(t, k, t - seconds[k], since[k], age, done))
            if version == rounds:
                break
        if turns > most:
            raise ValueError(no_step(t, version, lost, dropped))
    times, away, old = zip(*rows, strict=True)
    return table(np.reshape(ids, (rounds, buffer)), np.reshape(ages, (rounds, buffer)), times, lost=away, too_old=old)


def _too_old(k: int, t: float, age: int, window: int) -> str:
    """Say that an upload is older than all models that the server keeps."""
    return (
        f"arrivals: client {k} arrives at {t:.6g} s with a model that is {age} versions old, and window={window}, the models "
        'that it keeps: raise window, drop such uploads with too_old="drop", or lower concurrency / buffer'
    )
