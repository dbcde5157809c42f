"""The host's events against a plain loop without a heap: orders, ties, availability, losses, windows, tiers."""

import event_loop
import numpy as np
import pytest

from fedjax_lite.clock.arrivals import simulated
from fedjax_lite.clock.idle import idle
from fedjax_lite.engine.pace import Asynchrony

CLIENTS, SEED = 12, 3
SIZES = np.random.default_rng(0).integers(1, 9, CLIENTS)
SPREAD = np.exp(np.random.default_rng(1).standard_normal(CLIENTS))
TIED = np.random.default_rng(2).integers(1, 4, CLIENTS).astype(float)  # many arrive at the same time


def shifts(k, t):
    """Each client is there for two thirds of every nine seconds, at its own time."""
    return (t + k) % 9 < 6


def rare(k, t):
    """A few clients are there, so that slots wait, and all are lost who take long."""
    return (t + 3 * k) % 20 < 3


CASES = {
    "queue": (SPREAD, "queue", dict(concurrency=4, buffer=3)),
    "uniform": (SPREAD, "uniform", dict(concurrency=5, buffer=2)),
    "examples": (SPREAD, "examples", dict(concurrency=6, buffer=4)),
    "all at once": (SPREAD, "uniform", dict(concurrency=12, buffer=7)),
    "one at a time": (SPREAD, "queue", dict(concurrency=1, buffer=1)),
    "ties": (TIED, "uniform", dict(concurrency=7, buffer=3)),
    "ties of all": (TIED, "queue", dict(concurrency=12, buffer=12)),
    "equal": (np.ones(CLIENTS), "uniform", dict(concurrency=6, buffer=2)),
    "window": (SPREAD, "uniform", dict(concurrency=10, buffer=1, window=6)),
    "shifts": (SPREAD, "uniform", dict(concurrency=5, buffer=3, there=shifts)),
    "shifts in a queue": (TIED, "queue", dict(concurrency=9, buffer=3, there=shifts, window=3)),
    "shifts by examples": (SPREAD, "examples", dict(concurrency=5, buffer=3, there=shifts)),
    "rare": (TIED / 2, "uniform", dict(concurrency=6, buffer=2, there=rare, pause=1.25)),
}


@pytest.mark.parametrize("name", CASES)
def test_events_equal_the_plain_loop(name):
    durations, order, arguments = CASES[name]
    how = Asynchrony(arguments["buffer"], arguments.get("window", 10**9), "drop")
    more = {key: arguments[key] for key in ("concurrency", "there", "pause") if key in arguments}
    table = simulated(durations, how, sizes=SIZES, order=order, rounds=60, seed=SEED, **more)
    same = idle(order, np.arange(CLIENTS), SIZES, np.random.default_rng(SEED), arguments.get("there"))
    ids, ages, seconds, lost, too_old = event_loop.arrived(durations, same.take, same.give, rounds=60, **arguments)
    assert table.ids.tolist() == ids and table.ages.tolist() == ages and table.seconds.tolist() == seconds
    assert table.lost.tolist() == lost and table.too_old.tolist() == too_old and table.passed.sum() == pytest.approx(seconds[-1])
    assert (sum(lost) > 0) == ("there" in arguments) and (sum(too_old) > 0) >= (name == "window") and not table.tier.any()
    assert all(len(set(row)) == len(row) for row in ids)


IN_TIERS = {
    "tiers": ("uniform", 3, {}),
    "a queue": ("queue", 4, {}),
    "shifts": ("uniform", 2, dict(there=shifts, pause=2.0)),
    "rare": ("queue", 3, dict(there=rare, pause=0.75)),
}


@pytest.mark.parametrize("name", IN_TIERS)
@pytest.mark.parametrize("durations", [SPREAD, TIED / 2], ids=["spread", "ties"])
def test_tiers_equal_the_plain_loop(name, durations):
    order, tiers, more = IN_TIERS[name]
    table = simulated(durations, Asynchrony(2, 10**9, tiers=tiers), sizes=SIZES, order=order, rounds=50, seed=SEED, **more)
    groups, rng = np.array_split(np.argsort(durations, kind="stable"), tiers), np.random.default_rng(SEED)
    same = [idle(order, group, SIZES, rng, more.get("there")) for group in groups]
    takes, gives = [each.take for each in same], [each.give for each in same]
    ids, ages, seconds, lost, tier = event_loop.in_tiers(durations, groups, takes, gives, buffer=2, rounds=50, **more)
    assert [[k for k in row if k >= 0] for row in table.ids.tolist()] == ids and table.seconds.tolist() == seconds
    assert table.ages.max(axis=1).tolist() == ages and table.lost.tolist() == lost and table.tier.tolist() == tier
    assert set(tier) == set(range(tiers)) and all(set(row) <= set(groups[m].tolist()) for row, m in zip(ids, tier, strict=True))


def test_a_tier_waits_for_its_slowest():
    """Two of two: the fast tier's round takes 2 seconds, the slow one's 5."""
    table = simulated(np.array([5.0, 1, 2, 4]), Asynchrony(2, 99, tiers=2), order="queue", rounds=4)
    assert table.seconds.tolist() == [2, 4, 5, 6] and table.tier.tolist() == [0, 0, 1, 0] and table.ages[:, 0].tolist() == [0, 0, 2, 1]


@pytest.mark.parametrize(
    "order, more", [("uniform", {}), ("examples", {}), ("uniform", dict(there=shifts))], ids=["uniform", "examples", "there"]
)
def test_a_longer_table_begins_with_the_shorter(order, more):
    how = Asynchrony(3, 10**9)
    long, short = (simulated(SPREAD, how, sizes=SIZES, concurrency=6, order=order, rounds=rounds, seed=SEED, **more) for rounds in (90, 31))
    for a, b in zip(long[:-1], short[:-1], strict=True):
        assert np.array_equal(a[:31], b)
    other = simulated(SPREAD, how, sizes=SIZES, concurrency=6, order=order, rounds=31, seed=SEED + 1, **more)
    assert not np.array_equal(other.ids, short.ids)


def test_clients_without_examples_are_never_started():
    sizes = np.where(np.arange(CLIENTS) % 3, SIZES, 0)
    for order in ("uniform", "queue", "examples"):
        table = simulated(np.where(sizes, SPREAD, 0), Asynchrony(2, 10**9), sizes=sizes, concurrency=5, order=order, rounds=40)
        assert set(table.ids.ravel()) == set(np.flatnonzero(sizes))


@pytest.mark.parametrize("order", ["uniform", "examples"])
def test_idle_clients_are_drawn_by_their_law(order):
    """Of equal durations one at a time of twelve: a chi-square of the first drawn after each step, with a fixed seed."""
    weight = np.ones(CLIENTS) if order == "uniform" else SIZES
    table = simulated(np.ones(CLIENTS), Asynchrony(1, 9), sizes=SIZES, concurrency=1, order=order, rounds=12_000)
    counts, expected = np.bincount(table.ids[:, 0], minlength=CLIENTS), 12_000 * weight / weight.sum()
    assert np.sum((counts - expected) ** 2 / expected) < 31.3  # the 0.999 quantile with 11 degrees of freedom
