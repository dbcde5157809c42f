"""The noise of the private mean: its size, independent of everything, anew in each round, and what a quantile costs of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from clipped_means import CLIENTS, program, released, round_of, rows, stack
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.aggregators import dp_mean
from fedjax_lite.clip import normal_like

NOTHING = jax.tree.map(np.zeros_like, stack())


@jax.jit
def drawn(keys, weight, clip, z, divisor):
    """The means of many rounds with messages of zeros."""
    return jax.vmap(lambda key: program("uniform")(NOTHING, weight, key, clip, z, divisor)[0])(keys)


@pytest.mark.parametrize("present", [1.0, 0.0])
def test_noise_has_its_variance_on_every_coordinate_and_is_independent(present):
    z, clip, divisor, draws = 0.7, 3.0, 11.0, 4000
    found = rows(drawn(np.arange(draws), np.full(CLIENTS, present, np.float32), clip, z, divisor)) / (z * clip / divisor)
    low, high = scipy.stats.chi2.ppf([1e-5, 1 - 1e-5], draws)
    assert ((found**2).sum(0) > low).all() and ((found**2).sum(0) < high).all()
    assert abs(found.mean(0)).max() < 5 / math.sqrt(draws)
    between = np.corrcoef(np.concatenate([found, np.roll(found, 1, axis=0)], axis=1).T)  # leaves, coordinates, one round and the next
    assert abs(between - np.eye(len(between))).max() < 5 / math.sqrt(draws)


def test_noise_does_not_depend_on_the_data():
    V = stack(scale=0.01)
    for key in range(3):
        with_data = released(V, 1.0, 1.0, 5.0, key=key)[0] - rows(V).sum(0) / 5
        np.testing.assert_allclose(with_data, released(NOTHING, 1.0, 1.0, 5.0, key=key)[0], atol=1e-6)


def test_noise_of_leaves_is_drawn_apart():
    tree = jax.jit(lambda: normal_like(jax.random.key(1), {"a": jnp.zeros(5), "b": jnp.zeros(5)}, 1.0))()
    assert abs(np.asarray(tree["a"]) - np.asarray(tree["b"])).min() > 0


def test_noise_of_a_run_is_new_in_each_round_and_follows_the_clip_norm():
    """Clients that do not move: what is released in three rounds is noise alone, of z_v C_t / M with C_t that shrinks."""
    aggregator = dp_mean(0.5, 1.0, 4.0, quantile=1e-6, bit_noise=2.0, clip_rate=1.0)  # every norm is below C: it shrinks
    still = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.0)), aggregator, fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4, shuffle=False), population=len(SIZES),
    )  # fmt: skip

    def run(key, data, params):
        def step(state, _):
            after, history = still.round(state, data, fl.sampling.everyone()(jax.random.key(0), data.size, state.round))
            return after, (still.params(after) - still.params(state)).reshape(-1) / history["clip_norm"]

        state, moves = jax.lax.scan(step, still.init(params, key), length=3)
        return moves, state.aggregator

    runs = jax.jit(lambda keys, *given: jax.vmap(lambda key: run(jax.random.key(key), *given))(keys))
    moves, last = (np.asarray(x) for x in runs(np.arange(300), softmax_data(), softmax_params()))
    deviation = 1 / math.sqrt(1 - (1 - 1e-6) ** 2 / 4) / 4  # (z^-2 - (s / sigma_b)^2)^(-1/2) / M, s = 1 - gamma
    statistic = (moves / deviation) ** 2
    limits = scipy.stats.chi2.ppf([1e-4, 1 - 1e-4], statistic.shape[0] * statistic.shape[2])
    assert all(limits[0] < statistic[:, t].sum() < limits[1] for t in range(3))
    flat_moves = moves.reshape(len(moves), -1)
    correlation = np.corrcoef(flat_moves.T)[np.triu_indices(flat_moves.shape[1], 1)]
    assert np.abs(correlation).max() < 5.5 / math.sqrt(len(moves))  # between rounds and coordinates
    bits = np.log(last / 0.5)  # the sum of three noisy shares, against the noise of the sums
    assert max(abs(np.corrcoef(bits, flat_moves[:, i])[0, 1]) for i in range(flat_moves.shape[1])) < 5 / math.sqrt(len(moves))


@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_sum_and_quantile_cost_the_multiplier_together(quantile):
    """The sum has z_v C with z^-2 = z_v^-2 + (s / sigma_b)^2, and the count of the unclipped the noise sigma_b: guarantee 5."""
    z, sigma, divisor, rate = 1.0, 1.1, 20.0, 0.2
    found, states = costs(quantile, z, sigma)
    moved = max(quantile, 1 - quantile)
    assert np.std(found) * divisor / 2.0 == pytest.approx((z**-2 - (moved / sigma) ** 2) ** -0.5, rel=0.02)
    bits = np.log(states / 2.0) / -rate * divisor  # sum of b - gamma, with noise
    assert bits.std() == pytest.approx(sigma, rel=0.05) and bits.mean() == pytest.approx(CLIENTS * (1 - quantile), abs=0.1)  # all are short


@jax.jit
def rounds_of_zeros(keys, quantile, z, sigma):
    return jax.vmap(lambda key: round_of(dp_mean(2.0, z, 20.0, quantile=quantile, bit_noise=sigma), NOTHING, jnp.ones(CLIENTS), key)[:2])(
        keys
    )


def costs(*numbers):
    means, states = rounds_of_zeros(np.arange(4000), *map(np.float32, numbers))
    return rows(means), np.asarray(states)


@pytest.mark.parametrize("clients, z, quantile, sigma", [(100, 1.0, 0.5, 5.0), (100, 13.6, 0.5, 27.2), (10, 2.0, 0.9, 7.2)])
def test_the_quantile_has_so_much_noise_that_the_sum_keeps_its_own(clients, z, quantile, sigma):
    """sigma_b = max(q W / 20, 4 s z): by the mechanism alone, as it moves C without clients."""
    aggregator = dp_mean(1.0, z, clients, quantile=quantile)
    none = jnp.zeros(())
    nobody = (((none, none, none), none), jnp.float32(1.0))
    given = dp_mean(1.0, z, clients, quantile=quantile, bit_noise=sigma)
    found, expected = (each.finish(*nobody, jax.random.key(3)) for each in (aggregator, given))
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    alone = dp_mean(1.0, z, clients).finish((nobody[0][0], ()), (), jax.random.key(3))[0]  # the same draw, of z and not of z_v
    np.testing.assert_allclose(found[0] / alone, (1 - (max(quantile, 1 - quantile) * z / sigma) ** 2) ** -0.5, rtol=1e-5)
    assert (found[0] / alone).item() <= 1.0328
