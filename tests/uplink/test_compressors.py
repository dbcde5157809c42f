"""Compressors against plain NumPy and their papers' constants: sparse, with error feedback, quantised, of low rank."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compressed import COMPRESSORS, DRAWS, assert_unbiased, bits, flat, lognormal, many, message, once, vnmse
from contract import federate
from problems import softmax_data, softmax_params

import fedjax_lite as fl
from fedjax_lite import uplink


@pytest.mark.parametrize("share, k", [(0.01, 1), (0.1, 3), (0.5, 14), (1.0, 29)])
@pytest.mark.parametrize("decimals", [0, 9])  # at 0 almost all are ties
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_top_k_keeps_exactly_the_largest_and_of_ties_the_first(share, k, decimals, dtype):
    u = jax.tree.map(lambda x: jnp.round(x.astype(jnp.float32), decimals).astype(dtype), message(3, dtype))
    vector = flat(u)
    kept = np.argsort(-np.abs(vector), kind="stable")[:k]
    expected = np.zeros_like(vector)
    expected[kept] = vector[kept]
    decoded, state = once(uplink.top_k(share), u)
    np.testing.assert_array_equal(flat(decoded), expected)
    assert (state.payload, state.side) == (k * 8 * u["w"].dtype.itemsize, k * 5)
    assert ((vector - expected) ** 2).sum() <= (1 - k / 29) * (vector**2).sum()
    traced = jax.jit(lambda share: once(uplink.top_k(share), u))(share)
    np.testing.assert_array_equal(flat(traced[0]), expected)
    assert traced[1] == state


def test_top_k_in_double_precision_and_of_zeros(x64):
    u = jnp.asarray(np.random.default_rng(0).normal(size=1000))
    u = u.at[3].set(u[2] * (1 + 1e-15))  # neighbours as doubles, equal as floats
    k = int((jnp.abs(u) >= jnp.abs(u[3])).sum())
    assert once(uplink.top_k(k / 1000), u)[0][2:4].tolist() == [0, u[3]]
    assert once(uplink.top_k(0.5), jnp.zeros(4))[1].payload == 2 * 64


def test_random_k_is_unbiased_with_the_known_variance():
    u = jnp.arange(1.0, 11.0)
    drawn = many(uplink.random_k(0.3), u)
    assert set(np.unique((drawn != 0).sum(axis=1))) == {3}
    assert_unbiased(drawn, u)
    np.testing.assert_allclose(vnmse(drawn, u), 10 / 3 - 1, rtol=0.03)
    short = many(uplink.random_k(0.3, unbiased=False), u, 10)
    assert set(np.unique(short)) <= {0, *range(1, 11)}
    assert bits(uplink.random_k(0.3), u) == (3 * 32, 32)


@pytest.mark.parametrize(
    "inner", [uplink.top_k(0.2), uplink.random_k(0.2, unbiased=False), uplink.sign()], ids=["top_k", "random_k", "sign"]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_was_sent_and_the_residual_are_what_was_to_be_sent(inner, dtype):
    """Exactly: the numbers are whole."""
    transform, rng = uplink.error_feedback(inner), np.random.default_rng(0)
    state, to_send, was_sent = transform.init({"b": jnp.zeros(5, dtype), "w": jnp.zeros((4, 6), dtype)}), 0, 0
    for t in range(12):
        u = {"b": jnp.asarray(rng.integers(-8, 9, 5), dtype), "w": jnp.asarray(rng.integers(-8, 9, (4, 6)), dtype)}
        decoded, state = once(transform, u, t, state)
        to_send, was_sent = to_send + flat(u), was_sent + flat(decoded)
    assert state.residual["w"].dtype == jnp.float32 and flat(state.residual).any()
    np.testing.assert_array_equal(was_sent + flat(state.residual), to_send)


def test_error_feedback_sends_later_what_it_held_back():
    """The plain loop of the paper, in NumPy."""
    transform, rng, e = uplink.error_feedback(uplink.top_k(0.2)), np.random.default_rng(0), np.zeros(30)
    state = transform.init(jnp.zeros(30))
    for _ in range(8):
        u = rng.normal(size=30).astype(np.float32)
        c, kept = np.zeros(30), np.argsort(-np.abs(u + e))[:6]
        c[kept] = (u + e)[kept]
        e = u + e - c
        decoded, state = once(transform, jnp.asarray(u), 0, state)
        np.testing.assert_allclose(decoded, c, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.residual, e, rtol=1e-5, atol=1e-6)


def test_error_feedback_keeps_the_rounding_of_half_precision():
    transform = uplink.error_feedback(optax.identity())
    state, u = transform.init(jnp.zeros(1, jnp.bfloat16)), jnp.full(1, 1 / 256, jnp.bfloat16)
    decoded, state = once(transform, u + 1, 0, (transform.init(u)._replace(residual=jnp.full(1, 1 / 256))))
    assert decoded.dtype == jnp.bfloat16 and float(decoded[0]) + float(state.residual[0]) == float((u + 1)[0]) + 1 / 256
    assert state.residual[0] != 0


def test_error_feedback_warns_where_clients_hardly_ever_come():
    algorithm = federate(aggregator=fl.aggregators.mean(), uplink=COMPRESSORS["error_feedback"], batches=fl.Batches(4))
    arguments = (algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(2))
    with pytest.warns(UserWarning, match="a client takes part 0.86 times in this run"):
        fl.run(*arguments, rounds=3, key=jax.random.key(0))
    fl.run(*arguments, rounds=18, key=jax.random.key(0))  # 5.1 times: warnings are errors here


def test_uniform_is_unbiased_within_a_step():
    u = jnp.array([-1.0, 0.3, 0.35, 2.0, 1.5])
    drawn, step = many(uplink.uniform(4), u), 1.0
    assert_unbiased(drawn, u)
    assert np.abs(drawn - np.asarray(u)).max() <= step * (1 + 1e-6)
    assert set(np.round(np.unique(drawn), 5)) <= {-1, 0, 1, 2}
    p = np.modf((np.asarray(u, np.float64) + 1) / step)[0]
    np.testing.assert_allclose(((drawn - np.asarray(u)) ** 2).mean(0), step**2 * p * (1 - p), rtol=0.05, atol=1e-5)
    assert bits(uplink.uniform(4), message()) == (29 * 2, 2 * 64)
    assert np.array_equal(once(uplink.uniform(7), jnp.full(9, 0.1))[0], np.full(9, np.float32(0.1)))


@pytest.mark.parametrize("levels, published", [(1, 40.5), (4, 9.36), (16, 1.63), (64, 0.170), (256, 0.0108)])
def test_qsgd_has_the_error_of_its_formula(levels, published):
    u = lognormal()
    vector = np.asarray(u, np.float64)
    p = np.modf(np.abs(vector) / np.linalg.norm(vector) * levels)[0]
    expected = (p * (1 - p)).sum() / levels**2
    assert expected <= min(4096 / levels**2, 64 / levels)
    np.testing.assert_allclose(expected, published, rtol=0.1)  # of another draw of u
    np.testing.assert_allclose(vnmse(many(uplink.qsgd(levels), u, 300), u), expected, rtol=0.03)


def test_qsgd_is_unbiased_over_all_leaves():
    u = {"b": jnp.array([3.0]), "w": jnp.array([[0.0, -4.0]])}
    keys = jax.random.split(jax.random.key(0), DRAWS)
    drawn = jax.vmap(lambda key: uplink.qsgd(2).update(u, None, key=key)[0])(keys)
    drawn = np.concatenate([np.asarray(x, np.float64).reshape(DRAWS, -1) for x in jax.tree.leaves(drawn)], axis=1)
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
    u = jnp.asarray(np.random.default_rng(0).normal(size=20) * np.r_[np.ones(19), 9], jnp.float32)
    assert_unbiased(many(uplink.terngrad(clip=jnp.inf), u), u)
    bound = 2.5 * np.std(np.asarray(u, np.float64))
    clipped = many(uplink.terngrad(), u)
    assert np.abs(np.asarray(u)).max() > bound
    np.testing.assert_allclose(np.unique(clipped), [-bound, 0, bound] if (clipped < 0).any() else [0, bound], rtol=1e-5)
    assert_unbiased(clipped, np.clip(np.asarray(u, np.float64), -bound, bound))
    payload, side = bits(uplink.terngrad(), message())
    np.testing.assert_allclose(payload, 29 * np.log2(3), rtol=1e-6)
    assert side == 2 * 32


def test_power_sgd_is_exact_for_its_rank_after_one_step():
    rng = np.random.default_rng(0)
    u = {
        "b": jnp.asarray(rng.normal(size=9), jnp.float32),
        "w": jnp.asarray(rng.normal(size=(3, 4, 2)) @ rng.normal(size=(2, 10)), jnp.float32),
    }
    decoded, state = once(uplink.power_sgd(2), u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), decoded, u)
    assert state.factors[0].shape == (10, 2)
    assert bits(uplink.power_sgd(2), u) == (32 * (9 + 2 * (12 + 10)), 0)
    assert bits(uplink.power_sgd(9), u) == (32 * (9 + 120), 0)  # no gain: as it is
    assert np.array_equal(flat(once(uplink.power_sgd(9), u)[0]), flat(u))


def test_power_sgd_starts_where_it_ended_and_comes_to_the_best_approximation():
    rng = np.random.default_rng(0)
    m = rng.normal(size=(20, 15))
    u, transform = jnp.asarray(m, jnp.float32), uplink.power_sgd(2)
    left, values, right = np.linalg.svd(m)
    best = (left[:, :2] * values[:2]) @ right[:2]
    state, errors = transform.init(u), []
    for t in range(60):
        decoded, state = once(transform, u, t, state)
        errors.append(np.linalg.norm(m - np.asarray(decoded)))
    assert errors[0] > 1.05 * errors[-1]
    np.testing.assert_allclose(errors[-1], np.linalg.norm(m - best), rtol=1e-3)


def test_power_sgd_recovers_from_a_message_of_zeros():
    u, transform = jnp.outer(jnp.arange(1.0, 5), jnp.arange(1.0, 4)), uplink.power_sgd(1)
    decoded, state = once(transform, jnp.zeros_like(u))
    assert not np.asarray(decoded).any() and not np.asarray(state.factors[0]).any()
    np.testing.assert_allclose(once(transform, u, 1, state)[0], u, rtol=1e-5)
