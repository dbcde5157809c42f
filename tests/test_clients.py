"""What clients keep: a row of those who were there, and of nobody else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl

SIZES = (3, 1, 2, 5, 4)
COUNTS = fl.ClientWork(  # each keeps how often it took part
    init=lambda params, key: jnp.int32(0),
    start=lambda shared, own, client: (own, shared.params),
    step=lambda carry, batch: (carry, {}),
    finish=lambda shared, carry, client: (jnp.zeros_like(carry[1]), carry[0] + 1, {}),
)


@pytest.mark.parametrize("engine", [fl.packed(2), fl.padded()], ids=["packed", "padded"])
def test_an_empty_slot_is_no_turn_whoever_it_names(engine):
    server, data = fl.optimizer_server(optax.sgd(1.0)), fl.FederatedData.from_clients([{"x": np.ones(n)} for n in SIZES])
    built = fl.federate(COUNTS, fl.aggregators.mean(), server, batches=fl.Batches(4), population=len(SIZES), engine=engine)
    state = built.init(jnp.zeros(2), jax.random.key(0))
    cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([4, 2, 1, 2]), jnp.array([1.0, 1.0, 0.0, 0.0]))
    assert jax.jit(built.round)(state, data, cohort)[0].own.tolist() == [0, 0, 1, 0, 1]
