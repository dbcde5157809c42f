"""Cohorts from a table of arrivals: the round's metrics, an end, stacked tables, what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.clock.arrivals import simulated
from fedjax_lite.engine.pace import Asynchrony
from fedjax_lite.runner.identity import first_difference, parts_of

SIZES = jnp.array([3, 1, 4, 2, 5, 6])


def table(seed=1, rounds=5):
    """Of clients who differ so much that some uploads are too old, and who are lost now and then."""
    durations = np.array([0.5, 1.0, 1.5, 2.5, 3.0, 7.0])
    return simulated(durations, Asynchrony(2, 3, "drop"), concurrency=4, rounds=rounds, seed=seed, there=lambda k, t: (2 * k + t) % 7 < 5)


@jax.jit
def cohorts(of, rounds):
    return jax.lax.map(lambda t: fl.clock.arriving(of)(jax.random.key(0), SIZES, t)._replace(key=None), rounds)


def test_metrics_are_those_of_the_table():
    """Summed over slots, as a round does; after the last row there are neither clients nor seconds, and time stands still."""
    of = table()
    assert of.lost.any() and of.too_old.any() and of.ages.max() == 2
    drawn = cohorts(of, jnp.arange(7))
    assert (
        np.array_equal(drawn.id[:5], of.ids) and np.array_equal(drawn.age[:5], of.ages) and drawn.weight.sum(1).tolist() == [2] * 5 + [0, 0]
    )
    sums = {name: np.asarray(x.sum(axis=1)) for name, x in drawn.sums.items()}
    assert all(x.dtype == np.float32 and (name == "virtual_hours" or not x[5:].any()) for name, x in sums.items())
    assert (sums["virtual_hours"][5:] == sums["virtual_hours"][4]).all()
    np.testing.assert_allclose(sums["seconds"][:5], np.diff(of.seconds, prepend=0), rtol=1e-6)
    np.testing.assert_allclose(sums["virtual_hours"][:5], of.seconds / 3600, rtol=1e-6)
    np.testing.assert_allclose(sums["staleness"][:5], of.ages.mean(axis=1))
    for name, column in (("oldest", of.ages.max(axis=1)), ("lost", of.lost), ("too_old", of.too_old)):
        assert sums[name][:5].tolist() == column.tolist()


def test_a_longer_table_is_that_of_the_same_run():
    """What a resumed run is compared by; a table that parts from it does not have its name."""
    describe = lambda of: parts_of(sampler=fl.sampling.dropout(fl.clock.arriving(of), 0.1))  # noqa: E731
    short, long, other = (describe(table(seed, rounds)) for seed, rounds in ((1, 7), (1, 40), (2, 40)))
    assert len(json.dumps(long)) < 5000 and not first_difference(json.loads(json.dumps(short)), long)
    assert "of the first 1 steps" in first_difference(short, other)
    late = table(rounds=40)
    late = late._replace(seconds=late.seconds + (np.arange(40) > 30))
    assert "of the first" in first_difference(long, describe(late)) and not first_difference(short, describe(late))


def test_a_round_of_a_tier_says_whose_it_is_and_leaves_slots_empty():
    durations, how = np.array([1.0, 1, 4.5, 4.5]), Asynchrony(2, 9, tiers=2)
    of = simulated(durations, how, order="queue", rounds=5, there=lambda k, t: k != 3)
    drawn = cohorts(of, jnp.arange(5))
    assert drawn.weight.tolist() == [[1, 1]] * 3 + [[1, 1], [1, 0]] and drawn.tier[:, 0].tolist() == [0, 0, 0, 0, 1]
    assert drawn.age[4].tolist() == [4, 0] and drawn.sums["staleness"][4].sum() == 4  # the mean of those who are there


def test_tables_of_several_seeds_are_picked_by_a_traced_index():
    tables = [table(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *tables)
    picked = jax.jit(jax.vmap(lambda i: cohorts(jax.tree.map(lambda x: jnp.asarray(x)[i], stacked), jnp.arange(5))))(jnp.arange(3))
    for i, each in enumerate(tables):
        one = cohorts(each, jnp.arange(5))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), picked, one)
    assert not np.array_equal(tables[0].ids, tables[1].ids)


def test_refusals():
    with pytest.raises(ValueError, match="arriving: the table names client 4, and there are 4, counted from 0: make it for them"):
        fl.clock.arriving(table(rounds=40))(jax.random.key(0), SIZES[:4], jnp.int32(0))
    fl.sampling.check.check_sampler(fl.clock.arriving(table()), jax.random.key(0), SIZES)
