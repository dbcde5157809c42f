"""The convolutional networks: an independent composition of XLA's operations, shapes, dropout, refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fedjax_lite import tree
from fedjax_lite.models import example_by_example, supervised
from fedjax_lite.models.cnn import cifar_cnn, emnist_cnn


def plain(params, x, blocks, padding):
    """Convolutions, pooling and dense layers by XLA's own operations."""
    layer = 0
    for count in blocks:
        for _ in range(count):
            p = params[f"Conv_{layer}"]
            x = lax.conv_general_dilated(x, p["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x, layer = jnp.maximum(x + p["bias"][None, None, None], 0), layer + 1
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    x = jnp.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None], 0)
    return x @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None]


@pytest.mark.parametrize(
    "model, image, blocks, padding",
    [(emnist_cnn(10, dropout=None), (28, 28, 1), (2,), "VALID"), (cifar_cnn(7), (32, 32, 3), (2, 2), "SAME")],
    ids=["emnist", "cifar"],
)
def test_outputs_and_gradients_are_those_of_plain_operations(model, image, blocks, padding):
    rng = np.random.default_rng(0)
    batch = {"x": jnp.asarray(rng.standard_normal((2, *image)), jnp.float32), "y": jnp.array([1, 5])}
    params = model.init(jax.random.key(0), {"x": batch["x"][0]})
    outputs, back = jax.vjp(lambda p: model.apply(p, batch, None), params)
    expected, expected_back = jax.vjp(lambda p: plain(p, batch["x"], blocks, padding), params)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(back(outputs)), jax.tree.leaves(expected_back(outputs)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_one_example_after_another_is_the_whole_batch(monkeypatch):
    batch = {"x": jnp.asarray(np.random.default_rng(0).standard_normal((3, 28, 28, 1)), jnp.float32), "y": jnp.zeros(3, int)}
    model = emnist_cnn(10, dropout=None)
    params = model.init(jax.random.key(0), {"x": batch["x"][0]})
    results = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        outputs, back = jax.vjp(lambda p: model.apply(p, batch, None), params)
        results.append([outputs, *jax.tree.leaves(back(outputs))])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x)))


class _UserCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(example_by_example(_Block(), x).reshape(len(x), -1))


def test_dropout_within_differs_between_examples():
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 6, 6, 2)), (4, 6, 6, 2))
    streams = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    outputs, variables = _UserCNN().init_with_output(streams, x)
    assert set(variables["params"]) == {"_Block_0", "Dense_0"}
    assert len(np.unique(outputs[:, 0])) == 4


def test_a_user_s_layers_under_vmap_over_clients():
    x = jax.random.normal(jax.random.key(0), (5, 4, 6, 6, 2))
    module = _UserCNN()

    def init(key):
        return module.init({"params": key, "dropout": key}, x[0])

    def apply(params, x):
        return module.apply(params, x, rngs={"dropout": jax.random.key(3)})

    params = jax.vmap(init)(jax.random.split(jax.random.key(1), 5))
    together = jax.vmap(apply)(params, x)
    for client in range(5):
        alone = apply(tree.take(params, jnp.int32(client)), x[client])
        np.testing.assert_allclose(together[client], alone, rtol=1e-5, atol=1e-6)


def test_images_of_any_shape_are_the_same_images():
    model = emnist_cnn(dropout=None)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 784)), jnp.float32)
    params = model.init(jax.random.key(0), {"x": x[0]})
    flat, square, image = (model.apply(params, {"x": x.reshape(2, *shape)}, None) for shape in ((784,), (28, 28), (28, 28, 1)))
    np.testing.assert_array_equal(flat, square)
    np.testing.assert_array_equal(flat, image)


def test_dropout_is_of_training_only():
    model = emnist_cnn(3)
    batch = {"x": jnp.ones((1, 28, 28, 1)), "y": jnp.array([0])}
    params = model.init(jax.random.key(0), {"x": batch["x"][0]})
    evaluated = model.apply(params, batch, None)
    first, again, other = (model.apply(params, batch, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, evaluated)
    losses, metrics = supervised(model)(params, batch, jax.random.key(0))
    assert losses.shape == metrics["accuracy"].shape == (1,)


def test_refusals():
    with pytest.raises(ValueError, match="classes"):
        emnist_cnn(0)
    with pytest.raises(ValueError, match="dropout"):
        emnist_cnn(dropout=(0.5, 1.0))
    with pytest.raises(ValueError, match="layers must be a flax linen module, or a method of one, got <function"):
        example_by_example(lambda x: x, jnp.zeros((2, 3)))
