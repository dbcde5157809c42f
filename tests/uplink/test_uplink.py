"""What every compressor must do at the edges, what is refused, and which names configurations have for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compressed import COMPRESSORS, each_compressor, flat, message, once

from fedjax_lite import names, uplink


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
