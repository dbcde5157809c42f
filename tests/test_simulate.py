"""`simulate` and `advance`: whose rounds they run, one after another, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import SIZES, softmax_data
from segments import by_hand

import fedjax_lite as fl


def who_came(state, data, cohort):
    return state._replace(round=state.round + 1, server=state.server + cohort.id[0]), {"id": cohort.id[0] + state.round / 10}


def test_each_round_has_the_cohort_of_its_own_key():
    data, sampler, key = softmax_data(), fl.sampling.uniform(2), jax.random.key(3)
    run = jax.jit(lambda data, key: fl.simulate(by_hand(who_came), data, jnp.zeros(()), sampler, rounds=6, key=key))
    state, history = run(data, key)
    draw = jax.jit(sampler)
    ids = [int(draw(jax.random.fold_in(key, t), data.size, jnp.int32(t)).id[0]) for t in range(6)]
    np.testing.assert_allclose(history["id"], [id + t / 10 for t, id in enumerate(ids)], rtol=1e-6)
    assert len(set(ids)) > 1 and int(state.round) == 6 and float(state.server) == sum(ids)


@pytest.mark.parametrize(
    ("data", "rounds", "complaint"), [(SIZES, 2, "data must be a FederatedData"), (None, 0, "rounds must be at least 1")]
)
def test_what_is_refused(data, rounds, complaint):
    with pytest.raises(Exception, match=f"{complaint}|data|rounds"):
        data = softmax_data() if data is None else data
        fl.simulate(by_hand(who_came), data, jnp.zeros(()), fl.sampling.uniform(2), rounds=rounds, key=jax.random.key(0))
