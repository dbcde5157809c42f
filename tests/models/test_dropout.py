"""Which of a network's two dropouts has which rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.models.networks.plain import plain_cnn

UNITS = 64  # of the dense layer, and outputs: each is shown as it is


@pytest.mark.parametrize("rates", [(0.0, 0.75), pytest.param((0.75, 0.0), marks=pytest.mark.deep)])
def test_the_second_rate_is_that_behind_the_dense_layer(rates):
    model = plain_cnn("network", UNITS, rates, blocks=((2,),), padding="VALID", hidden=(UNITS,))
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 1)), jnp.float32)}
    params = model.init(jax.random.key(0), {"x": batch["x"][0]})
    params |= {"Dense_1": {"kernel": jnp.eye(UNITS), "bias": jnp.zeros(UNITS)}}
    evaluated, trained = model.apply(params, batch, None), model.apply(params, batch, jax.random.key(1))
    kept = np.round(np.asarray(trained / jnp.where(evaluated > 0, evaluated, 1))[evaluated > 0], 4)
    assert (set(kept.tolist()) == {0.0, 4.0}) == (rates[1] > 0)
    if rates[1]:
        assert 0.1 < np.mean(kept > 0) < 0.4
