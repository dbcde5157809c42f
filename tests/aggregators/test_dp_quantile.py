"""The clip norm of the private mean rests where its quantile of the clients' norms is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.aggregators import dp_mean


def test_the_clip_norm_finds_the_quantile_of_the_norms():
    """1001 lognormal norms, no noise, from 0.1: after 10, 50 and 100 rounds as in the reference."""
    norms = np.random.default_rng(0).lognormal(size=1001)
    used, found = map(np.asarray, followed(norms, np.ones(1001), 0.1, 1001.0, 0.5, 100))
    np.testing.assert_allclose(found[[9, 49, 99]], [0.2549, 0.8871, 0.9287], atol=1e-4)
    np.testing.assert_allclose(used[1:], found[:-1], rtol=1e-6)  # that of the round, not of the next one
    assert float(used[0]) == np.float32(0.1)


@functools.partial(jax.jit, static_argnums=5)
def followed(norms, weights, clip, divisor, quantile, rounds):
    """The clip norms that rounds use, and those that they leave behind, with messages of these norms and no noise."""
    clients = len(norms)
    aggregator = dp_mean(clip, 0.0, divisor, weights=lambda client: weights[client.id], quantile=quantile, bit_noise=0.0)
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(clients, jnp.int32), jnp.arange(clients))

    def step(state, _):
        _, state, metrics = aggregator.finish(aggregator.collect(norms.astype(jnp.float32), cohort, state), state, jax.random.key(1))
        return state, (metrics["clip_norm"], state)

    return jax.lax.scan(step, aggregator.init(norms[0]), length=rounds)[1]


NORMS = np.random.default_rng(1).lognormal(size=100)
AS_GIVEN = np.random.default_rng(2).uniform(0.05, 1, 100)


@pytest.mark.parametrize(
    "weights, divisor, quantile",
    [
        (np.full(100, 0.5), 50.0, 0.9),
        (np.full(100, 0.1), 10.0, 0.9),
        (AS_GIVEN, AS_GIVEN.sum(), 0.8),
        (np.ones(100), 111.0, 0.9),  # a tenth fewer come than were expected
        (np.ones(100), 111.0, 0.97),
        (np.ones(100), 80.0, 0.2),  # and more
    ],
)
def test_it_rests_at_the_quantile_whatever_clients_weigh_and_however_many_come(weights, divisor, quantile):
    """Between the norms up to which a share of the weight of quantile -+ 2 % lies, of v_k = w_k m_k."""
    used, _ = followed(NORMS, weights, 1.0, divisor, quantile, 1000)
    norms = weights * NORMS
    share = np.array([weights[norms <= clip].sum() / weights.sum() for clip in np.asarray(used[-50:])])
    np.testing.assert_allclose(share, quantile, atol=0.02)


def test_one_round_moves_it_by_the_weighted_count():
    """4 clients of weight 1/4, all above C = 1, at quantile 1/2: exp(0.2 x 1/2)."""
    _, found = followed(np.full(4, 9.0), np.full(4, 0.25), 1.0, 1.0, 0.5, 1)
    np.testing.assert_allclose(found, [np.exp(0.1)], rtol=1e-6)
    _, found = followed(np.array([9.0, 9.0, 9.0, 1.0]), np.array([0.25, 0.25, 0.25, 1.0]), 1.0, 2.0, 0.75, 1)
    np.testing.assert_allclose(found, [np.exp(-0.2 * (0.75 * -0.75 + 0.25) / 2)], rtol=1e-6)
