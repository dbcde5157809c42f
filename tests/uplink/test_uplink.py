"""What every compressor must do at the edges, what is refused, and which names configurations have for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compressed import COMPRESSORS, each_compressor, flat, message, once, update
from grouping import grouped

from fedjax_lite import uplink
from fedjax_lite.configuration import registry


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def keeps_shapes_and_dtypes_and_compresses_zeros(compressor, dtype):
    u = message(dtype=dtype)
    decoded, state = once(compressor, u)
    assert shapes(decoded) == shapes(u)
    assert shapes(state) == shapes(jax.eval_shape(compressor.init, u))
    assert np.isfinite(flat(decoded)).all()
    zeros, state = once(compressor, jax.tree.map(np.zeros_like, u))
    assert all(np.isfinite(np.asarray(x, float)).all() for x in jax.tree.leaves((zeros, state)))
    assert not flat(zeros).any() or compressor is COMPRESSORS["sign"]
    after = flat(once(compressor, u, state=state)[0])
    assert np.isfinite(after).all() and after.any()


@each_compressor
def test_keeps_shapes_and_dtypes_and_compresses_zeros(compressor):
    keeps_shapes_and_dtypes_and_compresses_zeros(compressor, np.float32)


KINDS = {name: COMPRESSORS[name] for name in ("top_k", "random_k", "uniform", "scaled_sign", "drive", "power_sgd", "error_feedback")}


@grouped("compressor", KINDS)
def test_half_precision(compressor):
    keeps_shapes_and_dtypes_and_compresses_zeros(compressor, jnp.bfloat16)


@pytest.mark.deep
@each_compressor
def test_half_precision_of_the_other_kind(compressor):
    keeps_shapes_and_dtypes_and_compresses_zeros(compressor, np.float16)


NUMBERS = np.array([2.5, -1e-6], np.float32)
EDGES = {
    "nothing": {},
    "no coordinates": {"none": np.zeros((0, 3), np.float32)},
    "constant": {"none": np.zeros(0, np.float32), "some": np.full(8, 0.1, np.float32)},
}


@functools.cache
def at_the_edges(compressor):
    """The decoded message and the state of each of the odd messages, and two numbers decoded, each a message; one program."""

    def run(messages, numbers):
        return {name: update(compressor, u) for name, u in messages.items()}, jax.vmap(lambda x: update(compressor, x)[0])(numbers)

    return jax.jit(run)(EDGES, NUMBERS)


@each_compressor
def test_a_single_number(compressor):
    expected = np.sign(NUMBERS) if compressor is COMPRESSORS["sign"] else NUMBERS
    np.testing.assert_allclose(at_the_edges(compressor)[1], expected, rtol=1e-5)


@each_compressor
def test_a_constant_leaf(compressor):
    decoded = flat(at_the_edges(compressor)[0]["constant"][0])
    assert np.isfinite(decoded).all() and decoded.any()


@each_compressor
def test_leaves_without_coordinates(compressor):
    for name, (decoded, state) in at_the_edges(compressor)[0].items():
        assert jax.tree.map(jnp.shape, decoded) == jax.tree.map(jnp.shape, EDGES[name])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((decoded, state)))


@each_compressor
def test_keys_matter_where_there_are_any(compressor):
    u = message()
    first, again, other = (flat(once(compressor, u, seed)[0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    deterministic = [COMPRESSORS[name] for name in ("top_k", "sign", "scaled_sign", "error_feedback")]
    assert np.array_equal(first, other) == (compressor in deterministic)


@pytest.mark.deep
@grouped("compressor", {name: COMPRESSORS[name] for name in ("qsgd", "power_sgd", "error_feedback")})
def test_jit_is_eager(compressor):
    u = message()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), once(compressor, u), update(compressor, u))


def test_a_random_compressor_needs_its_key():
    for compressor in (uplink.qsgd(1), uplink.rotate(uplink.sign())):
        with pytest.raises(ValueError, match="give update the keyword key"):
            compressor.update(jnp.ones(3), compressor.init(jnp.ones(3)))


def test_compressors_of_one_chain_draw_apart():
    """Random coordinates are not those that a second scheme with the same key would round up."""

    def encode(message, draw):
        return jax.random.normal(draw(0), message.shape), 0, 0

    @jax.jit
    def run(ones, ramp):
        rounded = update(uplink.terngrad(np.inf), ramp, 3)[0] > 0
        chosen = update(uplink.random_k(0.5), ones, 3)[0] > 0
        return rounded, chosen, *(update(uplink.compressor(name, encode), ones, 3)[0] for name in ("other", "another"))

    rounded, chosen, other, another = run(np.ones(64, np.float32), np.linspace(0, 1, 64, dtype=np.float32))
    assert not np.array_equal(other, another)
    assert not np.array_equal(rounded, chosen)


@each_compressor
@pytest.mark.parametrize("where", ["everywhere", "one"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_message_that_is_not_finite_is_seen_and_leaves_no_trace(compressor, where, value):
    u, bad = message(), message()
    for x in bad.values():
        x[... if where == "everywhere" else (-1,) * x.ndim] = value
    decoded, state = once(compressor, bad)
    assert not np.isfinite(flat(decoded).sum())
    for seed in range(3):
        decoded, state = once(compressor, u, seed, state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((decoded, state)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: uplink.top_k(0), r"top_k: share must be in \(0, 1\].* got 0"),
        (lambda: uplink.random_k(1.5), r"random_k: share must be in \(0, 1\].* got 1.5"),
        (lambda: uplink.random_k(True), r"random_k: share must be in \(0, 1\].* got True"),
        (lambda: uplink.terngrad(clip=True), "terngrad: clip must be positive, in standard deviations, got True"),
        (lambda: uplink.eden(bits=True), "eden: bits must be a whole number from 1 to 4, got True"),
        (lambda: uplink.rotate(uplink.sign(), block=True), "rotate: block must be a power of two"),
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
    exported = {name for name in uplink.__all__ if name not in ("Sent", "apart", "compressor", "entropy_bits")}
    assert set(registry.names("uplink")) == exported
