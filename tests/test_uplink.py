"""Compressors against plain NumPy, their papers' constants, and bits counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.stats
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import names, uplink
from fedjax_lite.uplink.drive import CENTROIDS
from fedjax_lite.uplink.ledger import sent
from fedjax_lite.uplink.rotation import hadamard, rotated, rotated_back

DRAWS = 20_000
COMPRESSORS = {
    "top_k": uplink.top_k(0.3),
    "random_k": uplink.random_k(0.3),
    "uniform": uplink.uniform(5),
    "qsgd": uplink.qsgd(3),
    "sign": uplink.sign(),
    "scaled_sign": uplink.scaled_sign(),
    "terngrad": uplink.terngrad(),
    "rotate": uplink.rotate(uplink.uniform(5)),
    "drive": uplink.drive(),
    "drive biased": uplink.drive(unbiased=False),
    "eden": uplink.eden(bits=3),
    "power_sgd": uplink.power_sgd(1),
    "error_feedback": uplink.error_feedback(uplink.top_k(0.3)),
}
each_compressor = pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS)


def message(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {"b": jnp.asarray(rng.normal(size=5), dtype), "w": jnp.asarray(rng.normal(size=(4, 6)), dtype)}


def once(compressor, u, seed=0, state=None):
    """The decoded message and the state after it."""
    state = compressor.init(u) if state is None else state
    return optax.with_extra_args_support(compressor).update(u, state, None, key=jax.random.key(seed), round=0, weight=1.0)


def bits(compressor, u):
    """Payload and side bits of one message, as a round counts them."""
    decoded, state = once(compressor, u)
    return tuple(float(x) for x in sent(state, decoded)[:2])


def many(compressor, u, draws=DRAWS):
    """Decoded messages of independent draws, float64 `[draws, ...]`, of one array."""
    state = compressor.init(u)
    keys = jax.random.split(jax.random.key(7), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: compressor.update(u, state, None, key=key)[0]))(keys), np.float64)


def flat(u):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(u)])


def assert_unbiased(drawn, mean):
    """No coordinate's mean is off, by z-tests with Bonferroni's correction at 1e-3."""
    mean, spread = np.asarray(mean, np.float64), drawn.std(axis=0, ddof=1)
    error = drawn.mean(axis=0) - mean
    np.testing.assert_allclose(error[spread == 0], 0, atol=1e-6)
    z = np.abs(error[spread > 0]) / (spread[spread > 0] / np.sqrt(len(drawn)))
    assert 2 * scipy.stats.norm.sf(z.max()) * mean.size > 1e-3, z


def vnmse(drawn, u):
    return ((drawn - np.asarray(u, np.float64)) ** 2).sum(axis=-1).mean() / (np.asarray(u, np.float64) ** 2).sum()


def lognormal(d=4096):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.lognormal(size=d) * rng.choice([-1, 1], d), jnp.float32)


# Edges, of every compressor


@each_compressor
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_keeps_shapes_and_dtypes_and_compresses_zeros(compressor, dtype):
    u = message(dtype=dtype)
    decoded, state = once(compressor, u)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), decoded) == jax.tree.map(lambda x: (x.shape, x.dtype), u)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), compressor.init(u))
    assert np.isfinite(flat(decoded)).all()
    zeros, state = once(compressor, jax.tree.map(jnp.zeros_like, u))
    assert all(np.isfinite(np.asarray(x, float)).all() for x in jax.tree.leaves((zeros, state)))
    assert not flat(zeros).any() or compressor is COMPRESSORS["sign"]
    after = flat(once(compressor, u, state=state)[0])
    assert np.isfinite(after).all() and after.any()


@each_compressor
@pytest.mark.parametrize("value", [2.5, -1e-6])
def test_a_single_number(compressor, value):
    decoded = once(compressor, jnp.float32(value))[0]
    expected = np.sign(value) if compressor is COMPRESSORS["sign"] else value
    np.testing.assert_allclose(decoded, expected, rtol=1e-5)


@each_compressor
def test_a_constant_leaf(compressor):
    decoded = np.asarray(once(compressor, jnp.full(8, 0.1))[0])
    assert np.isfinite(decoded).all() and decoded.any()


@each_compressor
def test_leaves_without_coordinates(compressor):
    for u in ({}, {"none": jnp.zeros((0, 3))}, {"none": jnp.zeros(0), "some": jnp.arange(3.0)}):
        decoded, state = once(compressor, u)
        assert jax.tree.map(jnp.shape, decoded) == jax.tree.map(jnp.shape, u)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((decoded, state)))


@each_compressor
def test_jit_is_eager_and_keys_matter_where_there_are_any(compressor):
    u = message()
    eager = once(compressor, u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), jax.jit(lambda u: once(compressor, u))(u), eager)
    deterministic = [COMPRESSORS[name] for name in ("top_k", "sign", "scaled_sign", "error_feedback")]
    assert np.array_equal(flat(once(compressor, u, seed=1)[0]), flat(eager[0])) == (compressor in deterministic)


def test_a_random_compressor_needs_its_key():
    for compressor in (uplink.qsgd(1), uplink.rotate(uplink.sign())):
        with pytest.raises(ValueError, match="give update the keyword key"):
            compressor.update(jnp.ones(3), compressor.init(jnp.ones(3)))


def test_compressors_of_one_chain_draw_apart():
    """Random coordinates are not those that a second scheme with the same key would round up."""
    u = jnp.ones(64)
    rounded = once(uplink.terngrad(np.inf), jnp.linspace(0, 1, 64), 3)[0] > 0
    chosen = once(uplink.random_k(0.5), u, 3)[0] > 0
    other = once(uplink.compressor("other", uplink_encode), u, 3)[0]
    assert not np.array_equal(other, once(uplink.compressor("another", uplink_encode), u, 3)[0])
    assert not np.array_equal(rounded, chosen)


def uplink_encode(message, draw):
    return jax.random.normal(draw(0), message.shape), 0, 0


# Sparse


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


# Error feedback


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


# Quantised


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


# Rotated


@pytest.mark.parametrize("n", [1, 2, 8, 64, 128, 1024, 8192])
def test_hadamard_is_scipys(n):
    x = np.random.default_rng(0).integers(-9, 10, (2, n)).astype(np.float32)
    np.testing.assert_array_equal(hadamard(jnp.asarray(x)), x @ scipy.linalg.hadamard(n).astype(np.float32))


@pytest.mark.parametrize("shape, rows", [((), (1, 1)), ((3,), (1, 4)), ((8, 8), (1, 64)), ((5, 20), (1, 128)), ((300,), (3, 128))])
def test_rotation_keeps_the_norm_and_turns_back(shape, rows, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    y = rotated(jax.random.key(0), x, 128)
    assert y.shape == rows
    np.testing.assert_allclose(jnp.sum(y**2), jnp.sum(x**2), rtol=1e-12)
    np.testing.assert_allclose(rotated_back(jax.random.key(0), y, x), x, rtol=1e-12, atol=1e-14)
    others = [rotated(jax.random.key(i), x, 128) for i in range(1, 6)]
    assert x.size == 1 or not all(np.allclose(other, y) for other in others)


def test_signs_of_a_rotation_are_fair_and_independent():
    """Turned back without the transform's own part: H(H D x) = n D x."""
    signs = np.asarray(hadamard(rotated(jax.random.key(0), jnp.ones(2**16), 4096)) / 64).round().reshape(-1, 32)
    assert set(np.unique(signs)) == {-1, 1}
    z = signs.sum(axis=0) / np.sqrt(2048)
    assert scipy.stats.chi2.sf((z**2).sum(), 32) > 1e-3
    assert np.abs(signs.T @ signs / 2048 - np.eye(32)).max() < 4.5 / np.sqrt(2048)


def test_rotation_spreads_one_coordinate_and_so_quantises_it_well():
    u = jnp.zeros(256).at[7].set(1.0)
    assert np.unique(np.abs(rotated(jax.random.key(0), u, 256))) == 1 / 16
    u = u + 0.01 * jnp.asarray(np.random.default_rng(0).normal(size=256), jnp.float32)
    plain, turned = (vnmse(many(c, u, 200), u) for c in (uplink.uniform(2), uplink.rotate(uplink.uniform(2))))
    assert turned < plain / 2
    assert bits(uplink.rotate(uplink.uniform(4)), message()) == (2 * (8 + 32), 2 * 64)  # 5 and 24 coordinates, padded


@pytest.mark.parametrize(
    "compressor, expected",
    [
        (uplink.drive(), np.pi / 2 - 1),
        (uplink.drive(unbiased=False), 1 - 2 / np.pi),
        (uplink.eden(1), 0.57080),
        (uplink.eden(2), 0.13312),
        (uplink.eden(3), 0.03578),
        (uplink.eden(4), 0.00959),
    ],
    ids=["drive", "drive biased", "eden 1", "eden 2", "eden 3", "eden 4"],
)
def test_drive_and_eden_have_the_papers_error(compressor, expected):
    u = lognormal()
    drawn = many(compressor, u, 400)
    np.testing.assert_allclose(vnmse(drawn, u), expected, rtol=0.02)
    if expected != 1 - 2 / np.pi:
        np.testing.assert_allclose(vnmse(drawn.mean(0)[None], u), expected / 400, rtol=0.1)  # nothing is left but the variance


def test_centroids_are_lloyds():
    for number, positive in CENTROIDS.items():
        centroids = np.sort(np.r_[positive, -np.asarray(positive)])
        edges = np.r_[-np.inf, (centroids[1:] + centroids[:-1]) / 2, np.inf]
        mass = np.diff(scipy.stats.norm.cdf(edges))
        np.testing.assert_allclose(-np.diff(scipy.stats.norm.pdf(edges)) / mass, centroids, atol=2e-6)
        assert len(centroids) == 2**number


def test_drive_is_one_bit_eden_and_bits_are_those_of_rows():
    u = lognormal(1000)
    one, other = (many(compressor, u, 100) for compressor in (uplink.drive(), uplink.eden(1)))
    np.testing.assert_allclose(vnmse(one, u), vnmse(other, u), rtol=0.03)  # different streams: the errors agree, not the draws
    assert bits(uplink.drive(), message()) == (8 + 32, 2 * 32)
    assert bits(uplink.eden(3, block=16), message()) == (3 * (8 + 2 * 16), 3 * 32)


# Low rank


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


# The ledger


def test_bits_through_chains_and_wrappers():
    u = message()  # b: 5 coordinates, w: 24
    kernels = {"b": False, "w": True}
    assert bits(optax.clip_by_global_norm(1.0), u) == (29 * 32, 0)
    assert bits(optax.chain(optax.clip(1.0), uplink.sign(), optax.scale(2.0)), u) == (29, 0)
    assert bits(uplink.error_feedback(optax.chain(uplink.top_k(0.1), optax.clip(1.0))), u) == (3 * 32, 3 * 5)
    assert bits(optax.chain(uplink.top_k(0.1), uplink.qsgd(1)), u) == (29 * 2, 32)  # the last is what travels
    assert bits(optax.masked(uplink.sign(), kernels), u) == (24 + 5 * 32, 0)
    assert bits(optax.masked(uplink.sign(), False), u) == (29 * 32, 0)
    assert bits(optax.chain(uplink.sign(), optax.masked(uplink.qsgd(1), kernels)), u) == (24 * 2 + 5 * 32, 32)  # b: the sign did not fit
    both = optax.partition({"few": uplink.top_k(0.5), "many": uplink.rotate(uplink.uniform(2))}, {"b": "few", "w": "many"})
    assert bits(both, u) == (2 * 32 + 32, 2 * 3 + 64)
    assert bits(optax.masked(uplink.drive(), kernels), message(dtype=jnp.bfloat16)) == (32 + 5 * 16, 32)
    assert bits(uplink.rotate(optax.masked(uplink.sign(), kernels)), u)[0] == pytest.approx(32 + 5 * 32, rel=0.5)


def test_entropy():
    rng = np.random.default_rng(0)
    symbols = rng.choice(4, 5000, p=[0.7, 0.1, 0.1, 0.1])
    frequencies = np.bincount(symbols) / 5000
    assert uplink.entropy_bits(symbols) == pytest.approx(5000 * scipy.stats.entropy(frequencies, base=2))
    assert uplink.entropy_bits(jnp.zeros(7)) == 0
    decoded = once(uplink.qsgd(4), lognormal())[0]
    assert uplink.entropy_bits(decoded) < 0.5 * float(once(uplink.qsgd(4), lognormal())[1].payload)  # most are 0


def build(transform, engine=None):
    return fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4),
        population=7,
        uplink=transform,
        engine=engine,
    )


@pytest.mark.parametrize("engine", [fl.packed(2), fl.padded(), fl.sequential()], ids=["packed", "padded", "sequential"])
def test_a_round_adds_the_bits_of_those_who_came(engine):
    data = softmax_data((5, 1, 12, 3, 8, 0, 7), empty=True)
    for transform, payload, side in (
        (None, 18 * 32, 0),
        (uplink.error_feedback(uplink.top_k(0.25)), 4 * 32, 4 * 5),
        (uplink.drive(), 32, 32),
    ):
        algorithm = build(transform, engine)
        state, history = jax.jit(
            lambda key, algorithm=algorithm: fl.simulate(
                algorithm, data, softmax_params(), fl.sampling.poisson(0.4, capacity=6), rounds=6, key=key
            )
        )(jax.random.key(0))
        clients = np.asarray(history["clients"])
        assert len(set(clients)) > 2
        np.testing.assert_array_equal(history["uplink_bits"], clients * (payload + side))
        np.testing.assert_array_equal(history["uplink_side_bits"], clients * side)
        np.testing.assert_array_equal(history["downlink_bits"], clients * 18 * 32)


def test_own_bits_of_traced_shares_add_up_and_residuals_stay_with_their_clients():
    data = softmax_data()

    def experiment(share):
        state, history = fl.simulate(
            build(uplink.error_feedback(uplink.top_k(share))),
            data,
            softmax_params(),
            fl.sampling.uniform(3),
            rounds=1,
            key=jax.random.key(0),
        )
        return state.uplink.residual, history["uplink_bits"]

    residuals, totals = jax.jit(jax.vmap(experiment))(jnp.array([0.1, 0.5, 1.0]))
    np.testing.assert_array_equal(totals[:, 0], 3 * 37 * np.array([2, 9, 18]))
    held = np.abs(residuals).sum(axis=(2, 3)) > 0
    assert held.sum(axis=1).tolist() == [3, 3, 0]


def test_a_message_that_is_a_smaller_tree_costs_its_own_bits():
    """Adapters, logits: what is counted up is the message, and down the parameters."""
    work = fl.sgd_work(softmax_loss, optax.sgd(0.1))

    def finish(shared, carry, client):
        message, own, metrics = work.finish(shared, carry, client)
        return {"first": message[0], "half": message[1].astype(jnp.bfloat16)}, own, metrics

    server = fl.optimizer_server(optax.sgd(1.0))
    algorithm = fl.federate(
        work._replace(finish=finish),
        fl.aggregators.mean(),
        server._replace(update=lambda aggregate, state, info: state),
        batches=fl.Batches(4),
        population=7,
    )
    _, history = fl.simulate(algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(2), rounds=1, key=jax.random.key(0))
    assert history["uplink_bits"][0] == 2 * (3 * 32 + 3 * 16) and history["downlink_bits"][0] == 2 * 18 * 32


# Messages that are not finite


@each_compressor
@pytest.mark.parametrize("where", ["everywhere", "one"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_message_that_is_not_finite_is_seen_and_leaves_no_trace(compressor, where, value):
    u = message()
    bad = jax.tree.map(lambda x: jnp.full_like(x, value) if where == "everywhere" else x.at[(-1,) * x.ndim].set(value), u)
    decoded, state = once(compressor, bad)
    assert not np.isfinite(sum(np.sum(x) for x in jax.tree.leaves(decoded)))
    for seed in range(3):
        decoded, state = once(compressor, u, seed, state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((decoded, state)))


def test_error_feedback_warns_where_clients_hardly_ever_come():
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4),
        population=7,
        uplink=COMPRESSORS["error_feedback"],
    )
    arguments = (algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(2))
    with pytest.warns(UserWarning, match="a client takes part 0.86 times in this run"):
        fl.run(*arguments, rounds=3, key=jax.random.key(0))
    fl.run(*arguments, rounds=18, key=jax.random.key(0))  # 5.1 times: warnings are errors here


# Refusals


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: uplink.top_k(0), r"top_k: share must be in \(0, 1\].* got 0"),
        (lambda: uplink.random_k(1.5), r"random_k: share must be in \(0, 1\].* got 1.5"),
        (lambda: uplink.uniform(1), "uniform: levels must be a whole number of at least 2, got 1"),
        (lambda: uplink.uniform(2.5), "uniform: levels must be a whole number of at least 2, got 2.5"),
        (lambda: uplink.qsgd(0), "qsgd: levels must be a whole number of at least 1, got 0"),
        (lambda: uplink.qsgd(float("inf")), "qsgd: levels must be a whole number of at least 1, got inf"),
        (lambda: uplink.terngrad(clip=-1), "terngrad: clip must be positive, in standard deviations, got -1"),
        (lambda: uplink.eden(bits=5), "eden: bits must be a whole number from 1 to 4, got 5"),
        (lambda: uplink.drive(block=100), "drive: block must be a power of two such as 4096, got 100"),
        (lambda: uplink.rotate(uplink.sign(), block=0), "rotate: block must be a power of two"),
        (lambda: uplink.power_sgd(0), "power_sgd: rank must be a whole number of at least 1, got 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_configurations_can_name_every_compressor():
    exported = {name for name in uplink.__all__ if name not in ("Sent", "compressor", "entropy_bits")}
    assert set(names.names("uplink")) == exported
