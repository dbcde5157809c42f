"""Group normalisation: group by group in NumPy, flax's gradients, and its edges."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from fedjax_lite.models import group_norm


def arguments(shape=(3, 4, 5, 6), lanes=(), seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(1, 2, each)) for each in ((*lanes, *shape), (*lanes, shape[-1]), (*lanes, shape[-1]))]


@pytest.mark.parametrize("shape, groups", [((3, 4, 5, 6), 2), ((3, 4, 5, 6), 6), ((2, 7, 6), 1), ((2, 6), 3)])
def test_each_group_is_normalised(x64, shape, groups):
    x, scale, bias = arguments(shape)
    found = jax.jit(lambda *given: group_norm(*given, groups))(x, scale, bias)
    np.testing.assert_allclose(found, networks.group_norm(x, scale, bias, groups), rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_flax_also_with_a_scale_for_each_client(x64):
    given = arguments(lanes=(2,))
    layer = nn.GroupNorm(3, epsilon=1e-5)

    def gradient(norm):
        def value(x, scale, bias):
            return jnp.sum(jnp.sin(jnp.arange(x.size).reshape(x.shape)) * norm(x, scale, bias) ** 2)

        return jax.grad(value, argnums=(0, 1, 2))

    @jax.jit
    def run(*given):
        theirs = gradient(lambda x, scale, bias: layer.apply({"params": {"scale": scale, "bias": bias}}, x))
        return jax.vmap(gradient(lambda *given: group_norm(*given, 3)))(*given), [theirs(*(a[k] for a in given)) for k in range(2)]

    ours, theirs = run(*given)
    for k in range(2):
        for mine, its in zip(ours, theirs[k], strict=True):
            np.testing.assert_allclose(mine[k], its, rtol=1e-9, atol=1e-9)


def test_equal_pixels_are_the_bias_and_their_gradient_is_finite():
    x, bias = jnp.full((2, 3, 3, 4), 7.0), jnp.arange(4.0)
    z, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(group_norm(x, jnp.ones(4), bias, 2))))(x)
    np.testing.assert_allclose(group_norm(x, jnp.ones(4), bias, 2), np.broadcast_to(np.arange(4.0), x.shape), atol=1e-2)
    assert np.isfinite(z) and np.isfinite(gradient).all()


def test_half_precision_is_summed_in_single():
    """Ten thousand pixels of about 3: in bfloat16 their sum would end at a thousand."""
    x, scale, bias = arguments((1, 100, 100, 2))
    x = jnp.asarray(3 + 0.5 * x, jnp.bfloat16)
    z = group_norm(x, jnp.asarray(scale, jnp.bfloat16), jnp.asarray(bias, jnp.bfloat16), 1)
    assert z.dtype == jnp.bfloat16
    np.testing.assert_allclose(z.astype(np.float32), networks.group_norm(np.asarray(x, np.float64), scale, bias, 1), atol=0.05)


def test_what_is_not_finite_stays_in_its_example():
    x, scale, bias = arguments()
    z = np.asarray(group_norm(x.at[1, 2, 3, 0].set(jnp.nan), scale, bias, 2))
    assert np.isnan(z[1, ..., :3]).all() and np.isfinite(z[1, ..., 3:]).all() and np.isfinite(z[[0, 2]]).all()


@pytest.mark.parametrize("groups", [0, 4, 7])
def test_groups_divide_the_channels(groups):
    with pytest.raises(ValueError, match=f"group_norm: groups must divide the 6 channels of a layer, got {groups}"):
        group_norm(jnp.zeros((1, 2, 2, 6)), jnp.ones(6), jnp.zeros(6), groups)
