"""Compressors against plain NumPy and their papers' constants: sparse, quantised, of low rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compressed import assert_unbiased, bits, flat, lognormal, many, message, once, update, vnmse

from fedjax_lite import uplink


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_top_k_keeps_exactly_the_largest_and_of_ties_the_first(dtype):
    traced = jax.jit(lambda share, u: update(uplink.top_k(share), u))
    for decimals in (0, 9):  # at 0 almost all are ties
        u = jax.tree.map(lambda x: np.round(x.astype(np.float32), decimals).astype(dtype), message(3, dtype))  # noqa: B023
        vector = flat(u)
        for share, k in ((0.01, 1), (0.1, 3), (0.5, 14), (1.0, 29)):
            kept = np.argsort(-np.abs(vector), kind="stable")[:k]
            expected = np.zeros_like(vector)
            expected[kept] = vector[kept]
            assert ((vector - expected) ** 2).sum() <= (1 - k / 29) * (vector**2).sum()
            found = [traced(share, u)]
            if share == 0.5:
                found.append(once(uplink.top_k(share), u))
            for decoded, state in found:
                np.testing.assert_array_equal(flat(decoded), expected)
                assert (state.payload, state.side) == (k * 8 * u["w"].dtype.itemsize, k * 5)


@pytest.mark.deep
def test_top_k_in_double_precision_and_of_zeros(x64):
    u = np.random.default_rng(0).normal(size=1000)
    u[3] = u[2] * (1 + 1e-15)  # neighbours as doubles, equal as floats
    k = int((np.abs(u) >= np.abs(u[3])).sum())
    assert once(uplink.top_k(k / 1000), u)[0][2:4].tolist() == [0, u[3]]
    assert once(uplink.top_k(0.5), np.zeros(4))[1].payload == 2 * 64


def test_random_k_is_unbiased_with_the_known_variance():
    u = np.arange(1, 11, dtype=np.float32)
    drawn = many(uplink.random_k(0.3), u)
    assert set(np.unique((drawn != 0).sum(axis=1))) == {3}
    assert_unbiased(drawn, u)
    np.testing.assert_allclose(vnmse(drawn, u), 10 / 3 - 1, rtol=0.03)
    short = many(uplink.random_k(0.3, unbiased=False), u, 10)
    assert set(np.unique(short)) <= {0, *range(1, 11)}
    assert bits(uplink.random_k(0.3), u) == (3 * 32, 32)


@pytest.mark.deep
def test_uniform_is_unbiased_within_a_step():
    u = np.array([-1.0, 0.3, 0.35, 2.0, 1.5], np.float32)
    drawn, step = many(uplink.uniform(4), u), 1.0
    assert_unbiased(drawn, u)
    assert np.abs(drawn - u).max() <= step * (1 + 1e-6)
    assert set(np.round(np.unique(drawn), 5)) <= {-1, 0, 1, 2}
    p = np.modf((u.astype(np.float64) + 1) / step)[0]
    np.testing.assert_allclose(((drawn - u) ** 2).mean(0), step**2 * p * (1 - p), rtol=0.05, atol=1e-5)
    assert bits(uplink.uniform(4), message()) == (29 * 2, 2 * 64)
    np.testing.assert_array_equal(once(uplink.uniform(7), np.full(9, 0.1, np.float32))[0], np.full(9, np.float32(0.1)))


def test_qsgd_has_the_error_of_its_formula():
    u = lognormal()
    vector = u.astype(np.float64)
    drawn = jax.jit(jax.vmap(lambda levels, u, seed: update(uplink.qsgd(levels), u, seed)[0], (None, None, 0)))
    for levels, published in ((1, 40.5), (4, 9.36), (16, 1.63), (64, 0.170), (256, 0.0108)):
        p = np.modf(np.abs(vector) / np.linalg.norm(vector) * levels)[0]
        expected = (p * (1 - p)).sum() / levels**2
        assert expected <= min(4096 / levels**2, 64 / levels)
        np.testing.assert_allclose(expected, published, rtol=0.1)  # of another draw of u
        np.testing.assert_allclose(vnmse(np.asarray(drawn(levels, u, np.arange(300)), np.float64), u), expected, rtol=0.03)


def test_qsgd_is_unbiased_over_all_leaves():
    drawn = many(uplink.qsgd(2), {"b": np.array([3], np.float32), "w": np.array([[0, -4]], np.float32)})
    assert_unbiased(drawn, [3, 0, -4])
    assert set(np.unique(drawn)) == {-5, -2.5, 0, 2.5, 5}  # the norm is 5
    assert bits(uplink.qsgd(3), message()) == (29 * 3, 32)
    assert bits(uplink.qsgd(jnp.int32(7)), message()) == (29 * 4, 32)


def test_signs():
    u = message()
    np.testing.assert_array_equal(flat(once(uplink.sign(), u)[0]), np.sign(flat(u)))
    np.testing.assert_allclose(flat(once(uplink.scaled_sign(), u)[0]), np.abs(flat(u)).mean() * np.sign(flat(u)), rtol=1e-6)
    assert bits(uplink.sign(), u) == (29, 0)
    assert bits(uplink.scaled_sign(), u) == (29, 32)


def test_terngrad_is_unbiased_but_for_clipping():
    u = (np.random.default_rng(0).normal(size=20) * np.r_[np.ones(19), 9]).astype(np.float32)
    assert_unbiased(many(uplink.terngrad(clip=np.inf), u), u)
    bound = 2.5 * np.std(u.astype(np.float64))
    clipped = many(uplink.terngrad(), u)
    assert np.abs(u).max() > bound
    np.testing.assert_allclose(np.unique(clipped), [-bound, 0, bound] if (clipped < 0).any() else [0, bound], rtol=1e-5)
    assert_unbiased(clipped, np.clip(u.astype(np.float64), -bound, bound))
    payload, side = bits(uplink.terngrad(), message())
    np.testing.assert_allclose(payload, 29 * np.log2(3), rtol=1e-6)
    assert side == 2 * 32


def test_power_sgd_is_exact_for_its_rank_after_one_step():
    rng = np.random.default_rng(0)
    u = {
        "b": rng.normal(size=9).astype(np.float32),
        "w": (rng.normal(size=(3, 4, 2)) @ rng.normal(size=(2, 10))).astype(np.float32),
    }
    transform = uplink.power_sgd(2)
    decoded, state = once(transform, u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), decoded, u)
    assert state.factors[0].shape == (10, 2)
    assert bits(transform, u) == (32 * (9 + 2 * (12 + 10)), 0)
    full = uplink.power_sgd(9)
    assert bits(full, u) == (32 * (9 + 120), 0)  # no gain: as it is
    np.testing.assert_array_equal(flat(once(full, u)[0]), flat(u))


def test_power_sgd_starts_where_it_ended_and_comes_to_the_best_approximation():
    rng = np.random.default_rng(0)
    m = rng.normal(size=(20, 15))
    u, transform = m.astype(np.float32), uplink.power_sgd(2)
    left, values, right = np.linalg.svd(m)
    best = (left[:, :2] * values[:2]) @ right[:2]
    state, errors = transform.init(jnp.asarray(u)), []
    for t in range(60):
        decoded, state = once(transform, u, t, state)
        errors.append(np.linalg.norm(m - np.asarray(decoded)))
    assert errors[0] > 1.05 * errors[-1]
    np.testing.assert_allclose(errors[-1], np.linalg.norm(m - best), rtol=1e-3)


def test_power_sgd_recovers_from_a_message_of_zeros():
    u, transform = np.outer(np.arange(1, 5), np.arange(1, 4)).astype(np.float32), uplink.power_sgd(1)
    decoded, state = once(transform, np.zeros_like(u))
    assert not np.asarray(decoded).any() and not np.asarray(state.factors[0]).any()
    np.testing.assert_allclose(once(transform, u, 1, state)[0], u, rtol=1e-5)
