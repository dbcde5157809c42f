"""The server that waits for nobody in particular: clients train at once, and each upload is taken in when it arrives."""

from heapq import heappop, heappush, heapreplace

import numpy as np

from fedjax_lite.clock.idle import Idle, There
from fedjax_lite.clock.table import MOST, Arrivals, Event, Row, no_step, table
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
    heap: list[tuple[float, int, int, int]] = []  # (time, number of the start, client, version); client -1: free slots ask again
    ids: list[int] = []
    ages: list[int] = []
    rows: list[Row] = []
    version = number = lost = dropped = turns = asked = 0
    free, left, asking = concurrency, buffer, False
    t, most = 0.0, MOST + 100 * len(seconds)
    while version < rounds:
        while free and (k := take(t)) >= 0:
            heappush(heap, (t + seconds[k], number, k, version))
            number, free = number + 1, free - 1
        if free and not asking and idle.anyone():
            heappush(heap, (t + pause, number, -1, 0))
            number, asked, asking = number + 1, asked + 1, True
        while True:
            t, _, k, started = heap[0]
            age, done = version - started, 0
            if k < 0:
                asking, free, turns = False, free - 1, turns + 1  # this was no client's slot
            elif there is not None and not there(k, t):
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
                    rows.append(Row(t, lost, dropped))
                    version = done = version + 1
                    left, lost, dropped, turns = buffer, 0, 0, 0
                    give(ids[-buffer:])
            if log is not None and k >= 0:
                log.append(Event(t, k, t - seconds[k], started, age, done))
            if turns > most:
                raise ValueError(no_step(t, version, lost, dropped))
            behind = len(heap)
            tied = (behind > 1 and heap[1][0] == t) or (behind > 2 and heap[2][0] == t)
            if tied or free or there is not None or (k := take(t)) < 0:
                heappop(heap)
                free += 1
                if not tied or version == rounds:  # all of one time are taken in before anyone is started
                    break
            else:  # the usual case, in one operation on the heap
                heapreplace(heap, (t + seconds[k], number, k, version))
                number += 1
                if version == rounds:
                    break
    running = sum(1 for _, _, k, _ in heap if k >= 0)
    shape = len(rows), buffer
    taken, old = (np.array(x[: len(rows) * buffer]).reshape(shape) for x in (ids, ages))
    return table(taken, old, rows, number - asked - running)


def _too_old(k: int, t: float, age: int, window: int) -> str:
    """Say that an upload is older than all models that the server keeps."""
    return (
        f"arrivals: client {k} arrives at {t:.6g} s with a model that is {age} steps of the server old, and window={window}, the models "
        'that it keeps: raise window, drop such uploads with too_old="drop", or lower concurrency / buffer'
    )
