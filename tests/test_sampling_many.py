"""Samplers of millions of clients, where jax's usual draws in float32 go astray."""

import jax
import numpy as np
import pytest
from scipy import stats

from fedjax_lite.sampling.samplers import MANY, _binomial, weighted


def sizes_of_parts(number, rate, at_once, draws, rounds):
    """How many of `number` clients came in each of draws * rounds Poisson rounds, some at a time."""

    def some(key):
        return jax.vmap(lambda key: _binomial(key, number, rate, at_once))(jax.random.split(key, draws))

    return np.asarray(jax.jit(lambda keys: jax.lax.map(some, keys))(jax.random.split(jax.random.key(5), rounds))).reshape(-1)


def chi_square(found, number, rate):
    """How likely a worse fit to the binomial distribution is: counts in bins of at least a few hundred expected draws."""
    edges = np.unique(stats.binom.ppf(np.linspace(0, 1, 41)[1:-1], number, rate))
    expected = np.diff(stats.binom.cdf(edges, number, rate), prepend=0, append=1) * len(found)
    seen = np.bincount(np.searchsorted(edges, found), minlength=len(expected))
    return stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), len(expected) - 1)


def test_a_cohort_that_is_drawn_in_parts_is_binomial():
    """Ten clients as 3, 3 and 4."""
    found = sizes_of_parts(10, 0.3, 4, 4000, 1)
    seen, expected = np.bincount(found, minlength=11), stats.binom.pmf(np.arange(11), 10, 0.3) * 4000
    assert stats.chi2.ppf(1e-4, 8) < ((seen - expected) ** 2 / expected)[:8].sum() < stats.chi2.ppf(1 - 1e-4, 8)
    assert sizes_of_parts(10, 1.0, 4, 1, 1).item() == 10


MILLIONS = [(10**7, 1e-5, "deep"), (1_234_567, 1e-2, "slow"), (10**7, 1e-3, "slow"), (10**8, 1e-6, "slow")]


@pytest.mark.parametrize("number, rate", [pytest.param(*case, marks=getattr(pytest.mark, tier)) for *case, tier in MILLIONS])
def test_the_cohort_of_millions_is_binomial(number, rate):
    """In one draw for all, jax's binomial fails this by far: p below 1e-70 for the first."""
    found = sizes_of_parts(number, rate, MANY, 16, 2000)
    assert 1e-4 < chi_square(found, number, rate)
    variance = number * rate * (1 - rate)
    assert abs(found.mean() - number * rate) < 5 * np.sqrt(variance / len(found))
    assert abs(found.var() / variance - 1) < 5 * np.sqrt(2 / len(found))


@pytest.mark.slow
def test_of_millions_of_equal_clients_no_id_is_preferred():
    """Scores that tie come in the order of ids; with float32's usual bits 0.62 of neighbours in the order of scores ascend."""
    draw = jax.jit(lambda key, sizes: weighted(64)(key, sizes, 0).id)
    ids = np.stack([draw(jax.random.key(i), np.full(2**23, 7, np.int32)) for i in range(20)])
    assert abs((np.diff(ids) > 0).sum() - 10 * 63) < 4 * np.sqrt(20 * 63 / 4)


@pytest.mark.slow
def test_who_holds_half_of_all_examples_comes_every_other_round_among_millions():
    """With float32's usual bits in 0.88 of the rounds."""
    sizes = np.append(np.full(2**24 - 1, 1, np.int32), 2**24 - 1)
    draw = jax.jit(lambda key, sizes: weighted(1)(key, sizes, 0).id[0])
    came = sum(int(draw(jax.random.key(i), sizes)) == 2**24 - 1 for i in range(60))
    assert abs(came - 30) < 4 * np.sqrt(15)
