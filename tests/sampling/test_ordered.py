"""The first of a sampler's order who are there, of many clients, against the whole order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite import sampling
from fedjax_lite.sampling.ordered import first_there, has_order

POPULATION = 1000
SAMPLERS = {
    "uniform": sampling.uniform(7),
    "everyone": sampling.everyone(),
    "cyclic": sampling.cyclic(7),
    "weighted": sampling.weighted(7),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("share", [0.5, 0.03, 0.002])
def test_the_first_of_the_order_who_are_there_are_found_in_it(name, share):
    sampler, sizes = SAMPLERS[name], jnp.arange(1, POPULATION + 1)
    some = jnp.asarray(np.random.default_rng(1).random((20, POPULATION)) < share)

    def one(t):
        key = jax.random.fold_in(jax.random.key(3), t)
        order = sampler.order(key, sizes, t)(jnp.arange(POPULATION))
        number = sampler.clients(POPULATION)
        return sampler(key, sizes, t).id, order, first_there(sampler, key, sizes, t, lambda ids: some[t][ids], number)

    ids, order, (found, there) = jax.device_get(jax.jit(jax.vmap(one))(np.arange(20)))
    assert (np.sort(order, axis=1) == np.arange(POPULATION)).all()
    np.testing.assert_array_equal(order[:, : ids.shape[1]], ids)  # the cohort is the beginning of the order
    for t in range(20):
        wanted = order[t][np.asarray(some[t])[order[t]]][: ids.shape[1]]
        assert found[t][there[t]].tolist() == wanted.tolist() and there[t].sum() == len(wanted)


def test_who_has_no_order():
    without = (sampling.poisson(0.1), sampling.shuffled(3), sampling.dropout(sampling.uniform(3), 0.1))
    assert not any(map(has_order, without)) and all(map(has_order, SAMPLERS.values()))
