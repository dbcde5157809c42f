"""The shuffle as a function: it is a bijection, and every order is equally likely."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedjax_lite.shuffle import permute


@partial(jax.jit, static_argnames="width")
def permuted(seed, n, width):
    """Where the first `width` positions go; past n that means nothing."""
    return permute(jax.random.key(seed), n, jnp.arange(width))


@partial(jax.jit, static_argnames=("width", "draws"))
def _orders(n, seed, width, draws):
    return jax.vmap(lambda key: permute(key, n, jnp.arange(width)))(jax.random.split(jax.random.key(seed), draws))


def orders(n, draws, seed=0, width=None):
    """Many permutations of n, one a row, with n traced."""
    return np.asarray(_orders(np.int32(n), seed, width or n, draws))[:, :n]


def is_a_bijection(n, seed, width):
    index = np.asarray(permuted(seed, np.int32(n), width))[:n]
    assert index.dtype == np.int32 and np.array_equal(np.sort(index), np.arange(n))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
def test_is_a_bijection(n, seed):
    is_a_bijection(n, seed, width=3000)


@pytest.mark.deep
@settings(max_examples=300, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
def test_is_a_bijection_at_length(n, seed):
    is_a_bijection(n, seed, width=3000)


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, *(pytest.param(n, marks=pytest.mark.deep) for n in (65_536, 1_000_003))])
def test_is_a_bijection_at_the_edges(n):
    is_a_bijection(n, 1, width=max(n, 3000))


@pytest.mark.parametrize("n", [15_000_000, 2**31 - 1])
def test_large_n_stays_in_range_without_repeats(n):
    index = np.asarray(permuted(3, np.int32(n), width=100_000))
    assert index.min() >= 0 and index.max() < n
    assert len(np.unique(index)) == len(index)
    assert stats.kstest(index / n, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_are_equally_likely(n):
    _, counts = np.unique(orders(n, 24_000, width=5), axis=0, return_counts=True)
    assert len(counts) == np.prod(np.arange(1, n + 1))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_positions_of_a_thousand_are_uniform():
    index = orders(1000, 2_000)
    for position in (0, 1, 500, 999):
        counts, _ = np.histogram(index[:, position], bins=50, range=(0, 1000))
        assert stats.chisquare(counts).pvalue > 1e-3
    # Neighbours: the distance of two adjacent positions must be as random as the positions.
    distance = (index[:, 1] - index[:, 0]) % 1000
    counts, _ = np.histogram(distance[distance > 0], bins=37, range=(1, 1000))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_every_position_and_value_pair_is_equally_likely():
    n, draws = 50, 20_000
    index = orders(n, draws, seed=5)
    table = np.zeros((n, n))
    np.add.at(table, (np.broadcast_to(np.arange(n), index.shape), index), 1)
    # n*n cells with rows and columns fixed: (n-1)^2 degrees of freedom.
    statistic = ((table - draws / n) ** 2 / (draws / n)).sum() * (n - 1) / n
    assert 1e-3 < stats.chi2.sf(statistic, (n - 1) ** 2) < 1 - 1e-3


def test_other_keys_give_other_orders():
    index = orders(1000, 2_000)
    assert np.mean(index[0] == index[1]) < 0.02


def test_unrolled_and_looped_agree(monkeypatch):
    looped = permuted(2, np.int32(37), width=3000)[:37]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert np.array_equal(looped, jax.jit(lambda: permute(jax.random.key(2), 37, jnp.arange(37)))())
