"""Bound the norm of messages, even of messages that are not finite."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_lite.base import Number, Tree
from fedjax_lite.tree import squared_norm, wide


def clipped(message: Tree, most: Number) -> tuple[Tree, Float[Array, ""]]:
    """Cut one message to a norm over all leaves; also return its norm before.

    v min(1, C / ||v||), with 0 for coordinates that are not finite, and 0 for a message whose norm overflows.

    Guarantees: the norm of the result is at most C, up to rounding (a relative 1e-6 in float32), for any message; a message that is
    short enough is not changed.

    Args:
        message: any pytree of arrays.
        most: C > 0.

    Returns:
        The message in float32 or wider; its norm before (float32 scalar or wider, infinite if it overflowed).

    >>> short, norm = clipped({"w": jnp.array([3.0, jnp.nan]), "b": jnp.array(4.0)}, 1.0)
    >>> float(norm), [round(float(x), 3) for x in (short["w"][0], short["w"][1], short["b"])]
    (5.0, [0.6, 0.0, 0.8])
    """
    message = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), wide(x), 0), message)
    norm = norm_of(message)
    factor = jnp.where(jnp.isfinite(norm), jnp.minimum(1, most / jnp.where(norm > 0, norm, 1)), 0)
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), message), norm


def clipped_by_leaf(message: Tree, most: Number) -> tuple[Tree, Float[Array, ""]]:
    """Cut each of a message's L leaves to the norm C / sqrt(L), so that the message's norm is at most C.

    Also return sqrt(L) times the largest norm of a leaf before, which is above C if a leaf was cut.

    >>> clipped_by_leaf({"w": jnp.array([3.0]), "b": jnp.array([0.1])}, math.sqrt(2))[0]["w"].tolist()
    [1.0]
    """
    leaves, structure = jax.tree.flatten(message)
    pairs = [clipped(leaf, most / math.sqrt(len(leaves))) for leaf in leaves]
    largest = jnp.max(jnp.stack([norm for _, norm in pairs]))
    return jax.tree.unflatten(structure, [leaf for leaf, _ in pairs]), math.sqrt(len(leaves)) * largest


def normal_like(key: Array, message: Tree, deviation: Number) -> Tree:
    """Draw Gaussian noise in the shapes of a tree, with a key for each leaf."""
    leaves, structure = jax.tree.flatten(message)
    keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
    noise = [deviation * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def norm_of(message: Tree) -> Float[Array, ""]:
    """Return the Euclidean norm over all leaves, at least float32."""
    return _root(squared_norm(message))


@jax.custom_jvp
def _root(x: Array) -> Array:
    """Return sqrt(x), with slope 0 at x = 0, where the root has none."""
    return jnp.sqrt(x)


@_root.defjvp
def _root_jvp(primals, tangents):
    root = _root(*primals)
    return root, jnp.where(root > 0, tangents[0] / (2 * jnp.where(root > 0, root, 1)), 0)
