"""The convolutional networks: an independent composition of XLA's operations, shapes, dropout, refusals."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fedjax_lite import tree
from fedjax_lite.models import example_by_example, supervised
from fedjax_lite.models.networks.cnn import cifar_cnn, emnist_cnn, lenet5
from fedjax_lite.models.networks.plain import plain_cnn


def plain(params, x, blocks, padding):
    """Convolutions, pooling and dense layers by XLA's own operations."""
    layer = 0
    for count in blocks:
        for _ in range(count):
            p = params[f"Conv_{layer}"]
            x = lax.conv_general_dilated(x, p["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = x + p["bias"][None, None, None]
            if f"GroupNorm_{layer}" in params:
                x = nn.GroupNorm(2, epsilon=1e-5).apply({"params": params[f"GroupNorm_{layer}"]}, x)
            x, layer = jnp.maximum(x, 0), layer + 1
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    layers = sorted(name for name in params if name.startswith("Dense"))
    for name in layers:
        x = x @ params[name]["kernel"] + params[name]["bias"][None]
        x = x if name == layers[-1] else jnp.maximum(x, 0)
    return x


MODELS = {
    "emnist": (emnist_cnn(10, dropout=None), (28, 28, 1), (2,), "VALID"),
    "cifar": (cifar_cnn(7), (32, 32, 3), (2, 2), "SAME"),
    "lenet": (lenet5(7), (16, 16, 1), (1, 1), "VALID"),
    "groups, the last blocks on the batch": (
        plain_cnn("vgg", 7, blocks=((2,), (4, 4), (4,)), hidden=(), groups=2, apart=1),
        (8, 8, 3),
        (1, 2, 1),
        "SAME",
    ),
}


def images(name):
    return np.random.default_rng(0).standard_normal((2, *MODELS[name][1])).astype(np.float32)


@functools.cache
def params_of(name):
    return jax.jit(MODELS[name][0].init)(jax.random.key(0), {"x": images(name)[0]})


@pytest.mark.parametrize(
    "backend, name",
    [*(pytest.param("cpu", name, marks=[pytest.mark.deep] * (name != "emnist")) for name in MODELS), ("gpu", "emnist")],
)
def test_outputs_and_gradients_are_those_of_plain_operations(backend, name, monkeypatch):
    """On a CPU one example after another, elsewhere the whole batch."""
    model, _, blocks, padding = MODELS[name]
    params = params_of(name)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    @jax.jit
    def run(params, x):
        functions = (lambda p: model.apply(p, {"x": x}, None)), (lambda p: plain(p, x, blocks, padding))
        (ours, back), (theirs, back_of_theirs) = (jax.vjp(f, params) for f in functions)
        return (ours, back(theirs)), (theirs, back_of_theirs(theirs))

    (outputs, gradients), (expected, expected_gradients) = run(params, images(name))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x)))


class _UserCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(example_by_example(_Block(), x).reshape(len(x), -1))


def test_a_user_s_layers_under_vmap_over_clients_and_dropout_that_differs_between_examples():
    x = np.random.default_rng(0).standard_normal((3, 4, 6, 6, 2)).astype(np.float32)
    x[0] = x[0, :1]
    module = _UserCNN()

    def apply(params, x):
        return module.apply(params, x, rngs={"dropout": jax.random.key(3)})

    @jax.jit
    def run(keys, x):
        params = jax.vmap(lambda key: module.init({"params": key, "dropout": key}, x[0]))(keys)
        return params, jax.vmap(apply)(params, x)

    params, together = run(jax.random.split(jax.random.key(1), 3), x)
    assert set(params["params"]) == {"_Block_0", "Dense_0"}
    assert len(np.unique(together[0, :, 0])) == 4  # of equal examples
    alone = jax.jit(lambda params, x, client: apply(tree.take(params, client), x[client]))
    for client in range(3):
        np.testing.assert_allclose(together[client], alone(params, x, client), rtol=1e-5, atol=1e-6)


def test_images_of_any_shape_are_the_same_images():
    model, x = MODELS["emnist"][0], images("emnist")

    @jax.jit
    def run(params, *shaped):
        return [model.apply(params, {"x": x}, None) for x in shaped]

    flat, square, image = run(params_of("emnist"), x.reshape(2, 784), x.reshape(2, 28, 28), x)
    np.testing.assert_array_equal(flat, square)
    np.testing.assert_array_equal(flat, image)


def test_dropout_is_of_training_only():
    model, params = emnist_cnn(10), params_of("emnist")
    batch = {"x": np.ones((1, 28, 28, 1), np.float32), "y": np.array([0])}
    loss_fn = supervised(model)

    @jax.jit
    def run(params, batch, key):
        plain = MODELS["emnist"][0].apply(params, batch, key)
        return plain, model.apply(params, batch, None), model.apply(params, batch, key), loss_fn(params, batch, key)

    plain, evaluated, first, (losses, metrics) = run(params, batch, jax.random.key(0))
    again, other = (run(params, batch, jax.random.key(seed))[2] for seed in (0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, evaluated)
    np.testing.assert_allclose(plain, evaluated, rtol=1e-5, atol=1e-6)  # with dropout=None there is none
    np.testing.assert_allclose(losses, np.log(np.exp(first).sum(1)) - first[:, 0], rtol=1e-5)
    assert metrics["accuracy"].shape == (1,)


def test_refusals():
    with pytest.raises(ValueError, match="classes"):
        emnist_cnn(0)
    with pytest.raises(ValueError, match="dropout"):
        emnist_cnn(dropout=(0.5, 1.0))
    with pytest.raises(ValueError, match="layers must be a flax linen module, or a method of one, got <function"):
        example_by_example(lambda x: x, jnp.zeros((2, 3)))


def test_examples_of_another_size_are_named():
    for model, shape, size in ((emnist_cnn(), (64,), "28 x 28 x 1"), (cifar_cnn(), (28, 28, 1), "32 x 32 x 3")):
        with pytest.raises(ValueError, match=f"for images of {size}, got examples of the shape {re.escape(str(list(shape)))}"):
            jax.eval_shape(model.init, jax.random.key(0), {"x": np.zeros(shape, np.float32)})
