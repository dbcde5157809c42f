"""Samplers by hand: a client that would be lost without a word is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.sampling import availability, cohort, dropout
from fedjax_lite.sampling.check import check_sampler

SIZES = np.array([5, 1, 12, 3, 8, 2], np.int32)


BY_HAND = {
    "negative": ([0, 1], [1.0, -1.0], "client 1 has the weight -1.0: it must be finite and not negative"),
    "nan": ([4, 1], [np.nan, 1.0], "client 4 has the weight nan"),
    "twice": ([3, 1, 3, 5, 5], [1.0, 1.0, 0.5, 0.0, 0.0], "client 3 is in 2 slots of a round: name each client once"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_cohort_by_hand_that_would_lose_a_client_is_refused(name):
    ids, weight, message = BY_HAND[name]
    by_hand = lambda key, sizes, round: cohort(key, sizes, jnp.asarray(ids), jnp.asarray(weight))  # noqa: E731
    for sampler in (by_hand, dropout(by_hand, 0.0), availability(by_hand, 1, 2)):
        with pytest.raises(ValueError, match=f"sampler: {message}"):
            check_sampler(sampler, jax.random.key(0), SIZES)
    check_sampler(lambda key, sizes, round: cohort(key, sizes, jnp.arange(3)), jax.random.key(0), SIZES)


def test_a_sampler_that_returns_ids_is_refused():
    data = fl.FederatedData.from_clients([{"x": np.ones(2)}] * 3)
    algorithm = fl.algorithms.fedsgd(lambda params, batch, key: params * batch["x"], population=3)
    with pytest.raises(TypeError, match=r"sampler must return a cohort, as fl.sampling.cohort\(key, sizes, ids\) makes one of ids, got a"):
        fl.run(algorithm, data, jnp.float32(0), lambda key, sizes, round: jnp.arange(2), rounds=1, key=jax.random.key(0))


def test_a_table_says_who_takes_part_and_how_old_its_model_is():
    table = np.array([[3, 1], [0, -1], [2, 3]])
    sampler = fl.sampling.scheduled(table, ages=[[0, 2], [1, 0], [0, 5]])
    sizes = jnp.array([4, 3, 2, 1])
    cohorts = [jax.jit(sampler)(jax.random.key(t), sizes, jnp.int32(t)) for t in range(5)]
    assert [c.id[c.weight > 0].tolist() for c in cohorts] == [[3, 1], [0], [2, 3], [], []]
    assert [c.age[c.weight > 0].tolist() for c in cohorts] == [[0, 2], [1], [0, 5], [], []]
    stale = fl.aggregators.weighted_mean(lambda client: (1.0 + client.age) ** -0.5)
    part = stale.collect(jnp.array([1.0, 4.0]), cohorts[2], ())
    assert float(stale.finish(part, (), jax.random.key(0))[0]) == pytest.approx((1 + 4 / 6**0.5) / (1 + 1 / 6**0.5))


@pytest.mark.parametrize(
    ("ids", "ages", "message"),
    [
        ([1, 2], None, r"ids must be whole numbers \[rounds, clients\], got int64\[2\]"),
        ([[0.5]], None, "ids must be whole numbers"),
        ([[1, 1]], None, "ids name client 1 twice in round 0: name each once"),
        ([[1, 2]], [[0]], r"ages must be whole numbers from 0 on, of the shape \[1, 2\] of ids"),
        ([[1, 2]], [[0, -1]], "ages must be whole numbers from 0 on"),
    ],
)
def test_what_is_no_table_is_refused(ids, ages, message):
    with pytest.raises(ValueError, match=f"scheduled: {message}"):
        fl.sampling.scheduled(ids, ages)


def test_a_table_of_strangers_is_refused():
    with pytest.raises(ValueError, match="scheduled: ids name client 4, and there are 4, counted from 0"):
        fl.sampling.scheduled([[4]])(jax.random.key(0), jnp.ones(4, jnp.int32), 0)
