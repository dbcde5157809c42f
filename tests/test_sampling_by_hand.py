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
