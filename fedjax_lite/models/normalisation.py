"""Group normalisation in few passes over the images, forward and backward, also with parameters of each client's own."""

from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = ["group_norm"]


def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, *, epsilon: float = 1e-5) -> jax.Array:
    """Normalise each example over its pixels and the channels of a group.

        z = (x - mu_g) / sqrt(var_g + epsilon) * scale_c + bias_c

    The mean mu_g and variance var_g of a group are made of each channel's sums of x and x^2, and the whole is one affine function a
    channel, a x + b, so that XLA reads the images twice and fuses what follows. Sums are taken in at least float32.

    Args:
        x: `[batch, spatial..., channels]`, floating point.
        scale: `[channels]`.
        bias: `[channels]`.
        groups: of neighbouring channels; divides `channels`. 1: over all channels; `channels`: instance normalisation.
        epsilon: added to variances.

    Returns:
        z of the shape and dtype of x.

    Raises:
        ValueError: for groups that do not divide the channels.

    >>> x = jnp.array([[[1.0, 2.0, 10.0, 20.0]]])
    >>> group_norm(x, jnp.ones(4), jnp.zeros(4), 2, epsilon=0.0).round(4).tolist()
    [[[-1.0, 1.0, -1.0, 1.0]]]

    Wu and He, "Group Normalization" (2018), equations 1, 2 and 7.
    """
    channels = x.shape[-1]
    check_groups("group_norm", groups, [channels])
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    spatial = tuple(range(1, x.ndim - 1))

    def of_group(sums):
        means = sums.reshape(x.shape[0], groups, -1).mean(axis=-1, keepdims=True)
        return jnp.broadcast_to(means, (x.shape[0], groups, channels // groups)).reshape(x.shape[0], channels)

    mean, square = of_group(wide.mean(axis=spatial)), of_group((wide * wide).mean(axis=spatial))
    variance = jnp.maximum(square - mean * mean, 0)  # rounding may leave less than 0
    a = jax.lax.rsqrt(variance + epsilon) * scale[None].astype(wide.dtype)
    b = bias[None].astype(wide.dtype) - mean * a
    a, b = (jnp.expand_dims(v, spatial) for v in (a, b))
    return (wide * a + b).astype(x.dtype)


class GroupNorm(nn.Module):
    """Group normalisation as a layer, with scale 1 and bias 0 at first."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return group_norm(x, scale, bias, self.groups)


def check_groups(name: str, groups: int, widths: Iterable[int]) -> None:
    """Refuse groups that do not divide every width.

    Raises:
        ValueError: naming the first such width.
    """
    for width in widths:
        if groups < 1 or width % groups:
            raise ValueError(f"{name}: groups must divide the {width} channels of a layer, got {groups}")
