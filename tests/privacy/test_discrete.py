"""Noise on the integers against exact distributions, and what a round gives away against reference numbers."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fedjax_lite.privacy import discrete
from fedjax_lite.privacy.discrete import ddgauss_divergence, epsilon_of, skellam_divergence

# --- what a round gives away


@pytest.mark.parametrize(
    "granularity, gaussian, bessel", [(1e-3, 4.757868, 4.757871), (1e-2, 5.041728, 5.042081), (5e-2, 10.336691, 10.362060)]
)
def test_reference_epsilons(granularity, gaussian, bessel):
    for divergence, expected in ((ddgauss_divergence, gaussian), (skellam_divergence, bessel)):
        found = epsilon_of(lambda a, f=divergence: f(a, 1.0, 1.0, 100, granularity, 4096), rounds=1, delta=1e-5)
        assert round(found, 6) == expected


@pytest.mark.parametrize("rounds, delta", [(1, 1e-5), (10, 1e-6), (300, 1e-3), (1, 0.7)])
def test_epsilon_of_gaussian_noise_is_dp_accountings(rounds, delta):
    from dp_accounting import rdp

    orders = list(range(2, 257))
    for z in (0.5, 1.0, 50.0):
        oracle = rdp.compute_epsilon(orders, [rounds * a / (2 * z * z) for a in orders], delta)[0]
        assert epsilon_of(lambda a, z=z: a / (2 * z * z), rounds, delta) == pytest.approx(oracle, rel=1e-12, abs=1e-15)
    assert round(epsilon_of(lambda a: a / 2, 1, 1e-5), 6) == 4.752728
    assert epsilon_of(lambda a: a / 2, 0, 1e-5) == 0


@pytest.mark.parametrize("order, z, clients, expected", [(2, 1.2, 4, 4.467551), (1.5, 2.1, 9, 1.053031), (1.5, 2.1, 1, 0.680272)])
def test_the_gap_between_a_sum_of_discrete_gaussians_and_one(order, z, clients, expected):
    """C = gamma = 1 and d = 4 have D2 = 2 / z and D1 = 4 / z. A client's sigma is 0.6: tau = 10 (e^(-pi^2 0.36) + e^(-4/3 pi^2 0.36) +
    e^(-3/2 pi^2 0.36)) = 0.422443, for a D2^2 / 2 + 4 tau; 0.7: tau = 0.116271, for a / 2 (D2^2 + 2 D1 tau + 4 tau^2); alone: tau = 0."""
    assert ddgauss_divergence(order, 1.0, z, clients, 1.0, 4) == pytest.approx(expected, abs=1e-6)


def test_what_epsilon_of_refuses():
    with pytest.raises(ValueError, match="delta must be between 0 and 1"):
        epsilon_of(lambda a: a, 1, 1.0)
    for rounds in (-1, True):
        with pytest.raises(ValueError, match=f"epsilon_of: rounds must be a whole number of at least 0, got {rounds}"):
            epsilon_of(lambda a: a, rounds, 0.1)
    with pytest.raises(ValueError, match=r"epsilon_of: divergence\(2\) must be a number or infinite, got nan"):
        epsilon_of(lambda a: math.nan, 1, 1e-5)
    assert epsilon_of(lambda a: math.inf, 1, 1e-5) == math.inf


# --- the samplers


def exact_gaussian(k, sigma):
    mass = np.exp(-np.square(k / sigma) / 2)
    return mass / mass.sum()


def exact_skellam(k, sigma):
    return scipy.special.ive(np.abs(k).astype(float), sigma**2)


SAMPLERS = {
    "gaussian": (discrete.discrete_gaussian, exact_gaussian),
    "skellam": (lambda key, shape, sigma: discrete.draw_skellam(key, shape, sigma**2), exact_skellam),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma", [0.4, 17.0, *(pytest.param(sigma, marks=pytest.mark.deep) for sigma in (1.0, 5.0, 15.0, 60.0))])
def test_samplers_against_the_exact_distribution(name, sigma):
    draw, mass = SAMPLERS[name]
    n = 200_000
    numbers = np.asarray(draw(jax.random.key(3), (n,), sigma))
    assert numbers.dtype == np.int32
    k = np.arange(-int(9 * sigma) - 9, int(9 * sigma) + 10)
    expected = n * mass(k, sigma)
    seen = np.bincount(numbers - k[0], minlength=len(k))
    often = expected >= 5
    pairs = [np.append(x[often], x[~often].sum()) for x in (seen, expected)]
    assert scipy.stats.chisquare(*pairs, sum_check=False).pvalue > 1e-3
    assert (numbers**2.0).mean() == pytest.approx((k**2 * expected).sum() / n, rel=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma", [3000.0, 2.0**27])
def test_wide_noise(name, sigma):
    numbers = np.asarray(SAMPLERS[name][0](jax.random.key(3), (100_000,), sigma)) / sigma
    assert scipy.stats.kstest(numbers, "norm").pvalue > 1e-3
    assert numbers.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 8.0, 15.9, 16.0, 20.0, 150.0])
def test_the_error_of_the_distribution(name, sigma):
    """From its thresholds, exactly: the chance of a step, times that to keep a number of it, in words of 32 and 24 bits."""
    width, mu = discrete._width(jnp.float32(sigma)), jnp.float32(sigma**2)
    left = width * jnp.arange(discrete.CELLS)
    log_mass = partial(discrete._log_bessel, jnp.maximum(mu, 1)) if name == "skellam" else lambda k: -0.5 * jnp.square(k / sigma)
    steps = discrete._log_bessel_small(mu) if name == "skellam" and width == 1 else log_mass(left)
    limits = np.asarray(discrete._limits(width, steps), np.float64)[::-1] / 2**32
    step = -np.diff(limits, prepend=1, append=0)
    k = np.arange(discrete.CELLS * int(width))
    cell = k // int(width)
    kept = (
        np.ceil(np.asarray(jnp.exp(log_mass(jnp.asarray(k)) - log_mass(left[cell])), np.float64) * np.where(k == 0, 0.5, 1) * 2**24) / 2**24
    )
    mass = step[cell] * (kept if width > 1 else 1)
    assert mass.sum() / width > 0.949  # what there is to spare for
    exact = SAMPLERS[name][1](np.arange(-k[-1], k[-1] + 1), sigma)[k[-1] :] * np.where(k == 0, 1, 2)
    assert np.abs(mass / mass.sum() - exact).sum() / 2 < 1e-6


def test_draws_go_on_until_there_are_enough(monkeypatch):
    """With nothing to spare, some 200 of 5000 numbers come from a second draw: neither left out nor the first ones again."""
    monkeypatch.setattr(discrete, "SPARE", 10**9)
    sigma, k = 33.0, np.arange(-300, 301)
    numbers = np.asarray(jax.jit(lambda key: discrete.discrete_gaussian(key, (50, 100), sigma))(jax.random.key(4))).ravel()
    seen, expected = np.bincount(numbers + 300, minlength=601), 5000 * exact_gaussian(k, sigma)
    often = expected >= 5
    pairs = [np.append(x[often], x[~often].sum()) for x in (seen, expected)]
    assert scipy.stats.chisquare(*pairs, sum_check=False).pvalue > 1e-3
    assert not (np.lib.stride_tricks.sliding_window_view(numbers[:-4], 4) == numbers[-4:]).all(axis=1).any()


def test_numbers_are_a_function_of_key_and_shape():
    keys = jax.random.split(jax.random.key(0), 3)

    def draw(key):
        return discrete.discrete_gaussian(key, (7, 11), 100.0)

    one = jax.jit(draw)
    np.testing.assert_array_equal(jax.jit(jax.vmap(draw))(keys), [one(key) for key in keys])
    assert jax.eval_shape(lambda key: discrete.draw_skellam(key, (), 4.0), keys[0]).shape == ()


def test_samplers_refuse_what_they_cannot_draw():
    for draw, argument, most in ((discrete.discrete_gaussian, "sigma", 2.0**27), (discrete.draw_skellam, "variance", 2.0**54)):
        for wrong, said in (
            (1.001 * most, f"at most {most:.0f}"),
            (-1.0, "finite and not negative"),
            (math.nan, "finite and not negative"),
        ):
            with pytest.raises(ValueError, match=f"{draw.__name__}: {argument} must be {said}, got"):
                draw(jax.random.key(0), (3,), wrong)
