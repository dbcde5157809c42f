"""The loop of the usual case against the loop of all cases, over several blocks of draws, and the cases that it leaves to it."""

import numpy as np
import pytest

from fedjax_lite.clock import steady
from fedjax_lite.clock.arrivals import simulated
from fedjax_lite.engine.pace import Asynchrony

CLIENTS = 40
SPREAD = np.exp(np.random.default_rng(1).standard_normal(CLIENTS))
TIED = np.random.default_rng(2).integers(1, 4, CLIENTS).astype(float)


def steadily(durations, how, concurrency, rounds=50):
    ids = np.flatnonzero(durations < 9)  # of some numbers
    return steady.play_steadily(durations, ids, np.random.default_rng(3), how, concurrency=concurrency, rounds=rounds)


@pytest.mark.parametrize("buffer, concurrency", [(1, 1), (1, 40), (3, 10), (5, 36), (20, 20), (7, 34)])
def test_it_makes_the_table_of_the_other_loop(buffer, concurrency, monkeypatch):
    monkeypatch.setattr(steady, "BLOCK", 64)
    durations = np.append(SPREAD, [np.inf, np.inf])
    how, sizes = Asynchrony(buffer, 10**9), np.append(np.ones(CLIENTS, int), [0, 0])
    table = steadily(durations, how, concurrency)
    log = []  # which the loop of all cases writes
    same = simulated(durations, how, sizes=sizes, concurrency=concurrency, rounds=50, seed=3, log=log)
    for a, b in zip(table, same, strict=True):
        assert np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype
    assert len(log) == table.events == 50 * buffer


def test_other_cases_are_left_to_the_other_loop():
    assert steadily(SPREAD, Asynchrony(5, 10**9), 37) is None  # 40 - 37 + 1 are idle after a step, and five are drawn until the next
    assert steadily(TIED, Asynchrony(2, 10**9), 10) is None
    assert steadily(np.append(SPREAD, SPREAD), Asynchrony(2, 10**9), 60) is None
    oldest = steadily(SPREAD, Asynchrony(2, 10**9), 10).ages.max()
    assert steadily(SPREAD, Asynchrony(2, oldest + 1), 10) is not None and steadily(SPREAD, Asynchrony(2, oldest), 10) is None
