"""What a client sends with local privacy: noise against its distribution, and the bound on any message before it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from local_noise import DRAWS, NORM, SCIPY, ZEROS, C, Z, both, drawn, flat, sent, some, update, variance

import fedjax_lite as fl
from fedjax_lite.uplink.local_dp import local_gaussian, local_laplace


@both
def test_noise_has_its_variance_in_each_coordinate_and_its_distribution(kind):
    x = some(kind)
    assert x.shape == (DRAWS, 7)
    if kind == "gaussian":  # sums of squares are chi-square
        statistic = (x**2).sum(axis=0) / variance(kind)
        p = 2 * np.minimum(scipy.stats.chi2.cdf(statistic, DRAWS), scipy.stats.chi2.sf(statistic, DRAWS))
    else:  # 2 |x| / b is chi-square with 2 degrees of freedom
        statistic = 2 * np.abs(x).sum(axis=0) / (Z * C)
        p = 2 * np.minimum(scipy.stats.chi2.cdf(statistic, 2 * DRAWS), scipy.stats.chi2.sf(statistic, 2 * DRAWS))
    assert p.min() * x.shape[1] > 1e-3
    assert scipy.stats.kstest(x.reshape(-1), SCIPY[kind](scale=Z * C).cdf).pvalue > 1e-3


@both
def test_noise_is_independent_between_clients_rounds_and_leaves(kind):
    bound = scipy.stats.norm.isf(1e-3 / (2 * 7 * 7)) / math.sqrt(DRAWS)
    leaves = np.corrcoef(some(kind).T) - np.eye(7)
    assert np.abs(leaves).max() < bound

    @jax.jit
    def keys(round):
        return fl.streams.client_keys(jax.random.fold_in(jax.random.key(3), round), jnp.arange(DRAWS))

    first, second = (drawn(kind, keys(round)) for round in (0, 1))
    for a, b in ((first, second), (first[:-1], first[1:])):  # rounds, clients
        correlation = (a * b).mean(axis=0) / variance(kind)
        assert np.abs(correlation).max() < bound * 2
    assert len(np.unique(np.concatenate([first, second])[:, 0])) > 1.98 * DRAWS


@both
def test_the_sum_of_messages_has_their_noise_added(kind):
    clients = 50
    sums = some(kind).reshape(-1, clients, 7).sum(axis=1)
    spread = (sums**2).mean() / (clients * variance(kind))
    assert abs(spread - 1) < 5 * math.sqrt(2 / sums.size)


def test_kinds_and_compressors_draw_apart():
    @jax.jit
    def run(key, zeros):
        raw = jax.random.normal(jax.random.fold_in(key, 0), zeros.shape)
        return raw, *(make(clip=1.0, noise_multiplier=1.0).update(zeros, (), key=key)[0] for make in (local_gaussian, local_laplace))

    raw, gaussian, laplace = run(jax.random.key(0), np.zeros(64, np.float32))
    assert not (gaussian == raw).any()
    assert abs(scipy.stats.spearmanr(gaussian, laplace).statistic) < 0.5  # one stream would give the same ranks


any_float = st.floats(width=32, allow_subnormal=False, allow_nan=True, allow_infinity=True)
any_message = given(
    st.lists(any_float, min_size=1, max_size=4), st.lists(any_float, min_size=1, max_size=3), st.floats(2**-10, 2**10, width=32)
)


def is_short_enough(kind, w, b, clip):
    message = {"w": np.array(w + [0] * (4 - len(w)), np.float32).reshape(2, 2), "b": np.array(b + [0] * (3 - len(b)), np.float32)}
    short = flat(sent(kind, message, clip, z=0))
    assert np.isfinite(short).all()
    assert NORM[kind](short) <= clip * (1 + 1e-6)


@both
@any_message
@settings(max_examples=40, deadline=None, derandomize=True)
def test_before_noise_any_message_is_short_enough(kind, w, b, clip):
    is_short_enough(kind, w, b, clip)


@pytest.mark.deep
@both
@any_message
@settings(max_examples=500, deadline=None, derandomize=True)
def test_before_noise_any_of_many_messages_is_short_enough(kind, w, b, clip):
    is_short_enough(kind, w, b, clip)


@both
def test_a_message_is_cut_over_all_leaves_and_a_short_one_is_left(kind):
    rng = np.random.default_rng(0)
    message = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), ZEROS)
    v = flat(message)
    np.testing.assert_allclose(flat(sent(kind, message, z=0)), v * C / NORM[kind](v), rtol=1e-6)
    np.testing.assert_array_equal(flat(sent(kind, message, clip=100, z=0)), v)


@both
def test_what_is_not_finite_counts_as_zero_and_is_hidden_by_noise(kind):
    bad = {"b": np.array([np.nan, 0.25, -np.inf], np.float32), "w": np.full((2, 2), 3e38, np.float32)}
    assert sent(kind, bad | {"w": ZEROS["w"]}, z=0)["b"].tolist() == [0, 0.25, 0]
    private = flat(sent(kind, bad))  # its norm overflows: nothing of it is left
    np.testing.assert_array_equal(private, flat(sent(kind, ZEROS)))
    assert (private != 0).all()


@pytest.mark.parametrize("kind", ["laplace", pytest.param("gaussian", marks=pytest.mark.deep)])
def test_half_precision_is_computed_in_float32_and_cast_back(kind):
    message = {"h": np.full(4, 200, np.float16), "w": np.ones(2, np.float32)}
    private = sent(kind, message)
    assert private["h"].dtype == np.float16 and private["w"].dtype == np.float32
    cut = sent(kind, message | {"w": np.zeros(2, np.float32)}, z=0)  # squares would overflow in half precision
    np.testing.assert_allclose(NORM[kind](flat(cut)), C, rtol=1e-3)
    wide = sent(kind, jax.tree.map(np.float32, message))
    np.testing.assert_array_equal(private["h"], np.asarray(wide["h"]).astype(np.float16))


def test_double_precision_stays(x64):
    private = jax.jit(lambda message: update(local_gaussian(clip=C, noise_multiplier=Z), message))(np.zeros(5))
    assert private.dtype == np.float64 and (private != np.float32(private)).any()
