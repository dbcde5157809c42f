"""What a client of distributed differential privacy draws: its rounding, and noise that knows nothing of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import fedjax_lite as fl


@pytest.mark.deep
def test_noise_knows_nothing_of_the_rounding():
    """Each of many numbers 1.5 (or -1.5) goes up or down by chance, and its noise of deviation 2 does not depend on which."""
    message, keys = jnp.zeros((1, 4096)).at[0, 0].set(1.5 * math.sqrt(4096)), jax.random.split(jax.random.key(2), 10)
    alone = fl.sampling.cohort(jax.random.key(0), jnp.ones(1, jnp.int32), jnp.arange(1))

    def sent(noise_multiplier, key):
        rule = fl.aggregators.ddgauss(200.0, noise_multiplier, 1, 4096, granularity=1.0)
        return rule.collect(message, alone._replace(key=key[None]), jnp.int32(0))[0][0].astype(jnp.int32)

    rounded, noisy = np.asarray(jax.jit(jax.vmap(jax.vmap(sent, (None, 0)), (0, None)))(jnp.array([0.0, 0.01]), keys))
    assert set(np.abs(rounded).reshape(-1).tolist()) == {1, 2}
    mass = np.exp(-np.square(np.arange(-30, 32)) / 8)  # of the noise
    expected = (mass[1:] + mass[:-1]) / 2 / mass.sum()  # of both together, from -28 upwards
    found = np.bincount((noisy * np.sign(rounded)).reshape(-1) + 28, minlength=61)
    inside = slice(24, 37)  # where more than five are expected
    observed, wanted = (np.append(x[inside], x.sum() - x[inside].sum()) for x in (found, noisy.size * expected))
    assert scipy.stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3
