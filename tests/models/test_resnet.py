"""Residual networks: the whole of a small one in NumPy, with both stems and both shortcuts."""

import jax
import networks
import numpy as np
import pytest

from fedjax_lite.models.networks.resnet import _ResNet


@pytest.mark.parametrize("stem, shortcut", [("cifar", "padding"), ("imagenet", "projection")])
def test_a_small_network_is_its_equations(x64, stem, shortcut):
    network = _ResNet(widths=(2, 4), blocks=1, classes=3, groups=2, shortcut=shortcut, stem=stem)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 8, 3))
    start = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), start)
    found = jax.jit(network.apply)({"params": params}, x)

    stride, margin = (1, 1) if stem == "cifar" else (2, 3)
    norm = params["GroupNorm_0"]
    y = networks.conv(x, params["Conv_0"]["kernel"], stride, margin)
    y = networks.relu(networks.group_norm(y, norm["scale"], norm["bias"], 2))
    y = networks.pool(y, 3, 2, 1) if stem == "imagenet" else y
    y = networks.residual(params["Block_1"], networks.residual(params["Block_0"], y, 1, 2), 2, 2)
    assert ("Conv_2" in params["Block_1"]) == (shortcut == "projection") and "Conv_2" not in params["Block_0"]
    np.testing.assert_allclose(found, networks.dense(params["Dense_0"], y.mean(axis=(1, 2))), rtol=1e-9)


def test_weights_start_at_he_s_spread():
    """Variance 2 / fan out, so that signals keep their size through ReLU backwards."""
    network = _ResNet(widths=(32, 64), blocks=1, classes=3, groups=2, shortcut="projection", stem="cifar")
    block = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]["Block_1"]
    np.testing.assert_allclose(np.var(block["Conv_0"]["kernel"]), 2 / (9 * 64), rtol=0.1)
    assert (block["GroupNorm_0"]["scale"] == 1).all() and not block["GroupNorm_0"]["bias"].any()
