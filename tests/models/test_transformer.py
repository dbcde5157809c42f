"""The decoder: token by token in NumPy, what sees what, positions, padding and dropout."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from fedjax_lite.models.networks.transformer import rotate, transformer

SIZES = dict(width=8, layers=2, heads=2, length=9)
MODELS = {
    "rotary": transformer(11, **SIZES),
    "learned": transformer(11, positions="learned", padding=0, **SIZES),
}


def tokens(shape=(3, 7)):
    return np.random.default_rng(0).integers(1, 11, shape).astype(np.int32)


@functools.cache
def params_of(name):
    """Weights and biases as large as trained ones."""
    rng = np.random.default_rng(1)
    start = jax.eval_shape(lambda: MODELS[name].init(jax.random.key(0), {"x": jnp.zeros(7, jnp.int32)}))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), start)


@functools.cache
def applied(name):
    return jax.jit(lambda params, x: MODELS[name].apply(params, {"x": x}, None))


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_equations(name):
    x, params = tokens(), params_of(name)
    x[0, [0, 3]], x[1, 5:] = 0, 0  # padding in front, amid and behind, where it is one
    found = applied(name)(params, x)
    wide = jax.tree.map(np.float64, params)
    for sequence, logits in zip(x, found, strict=True):
        expected = networks.decoder(wide, sequence, 2, 2, name == "rotary", 0 if name == "learned" else None)
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_later_token_changes_nothing_before_it(name):
    x, params = tokens(), params_of(name)
    before = np.asarray(applied(name)(params, x))
    for t in range(7):
        other = x.copy()
        other[:, t] = other[:, t] % 10 + 1
        after = np.asarray(applied(name)(params, other))
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (np.abs(after[:, t:] - before[:, t:]).max(axis=-1) > 1e-5).all()


def test_padding_in_front_is_not_seen():
    """With rotary positions, which know distances alone, the logits are those of the sequence without it."""
    model, x, params = transformer(11, padding=0, **SIZES), tokens((1, 4)), params_of("rotary")
    apply = jax.jit(lambda x: model.apply(params, {"x": x}, None))
    padded = np.concatenate([np.zeros((1, 3), np.int32), x], axis=1)
    np.testing.assert_allclose(apply(padded)[:, 3:], apply(x), rtol=1e-3, atol=1e-4)
    assert np.isfinite(apply(np.zeros((1, 5), np.int32))).all()


def test_products_of_turned_vectors_depend_on_distances(x64):
    x = np.broadcast_to(np.random.default_rng(0).normal(size=(1, 2, 1, 6)), (1, 2, 8, 6))
    y = np.asarray(rotate(jnp.asarray(x)))
    products = y[0, 0] @ y[0, 1].T
    for distance in range(-7, 8):
        np.testing.assert_allclose(np.diag(products, distance), np.diag(products, distance)[0], rtol=1e-10)
    np.testing.assert_allclose(y[0, 1, 5], networks.turned(x[0, 1, 5], 5), rtol=1e-10)
    assert len(np.unique(np.round(products, 6))) == 15


def test_a_token_outside_the_vocabulary_makes_its_sequence_nan():
    x = tokens()
    x[1, 6] = 11
    found = np.asarray(applied("rotary")(params_of("rotary"), x))
    assert np.isnan(found[1, 6]).all() and np.isfinite(found[[0, 2]]).all()


def test_dropout_is_of_training_only():
    model, params, x = transformer(11, dropout=0.5, **SIZES), params_of("rotary"), tokens()
    run = jax.jit(lambda keys, x: [model.apply(params, {"x": x}, key) for key in (None, *keys)])
    evaluated, first, second = run(jax.random.split(jax.random.key(0)), x)
    np.testing.assert_allclose(evaluated, applied("rotary")(params, x), rtol=1e-5, atol=1e-5)
    assert not np.allclose(first, evaluated) and not np.allclose(first, second)


def test_weights_start_as_gpt_2_s():
    params = jax.jit(transformer(50, width=64, layers=2).init)(jax.random.key(0), {"x": np.zeros(3, np.int32)})
    block = params["_Block_0"]
    spreads = [np.std(leaf) for leaf in (params["embedding"], *(block[f"Dense_{k}"]["kernel"] for k in (0, 1, 3)))]
    np.testing.assert_allclose(spreads, [0.02, 0.02, 0.01, 0.01], rtol=0.1)
