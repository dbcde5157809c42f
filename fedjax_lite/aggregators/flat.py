"""A message as one flat vector, rotated block by block: no coordinate is then much larger than others."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.base import Key, Tree
from fedjax_lite.refuse import whole
from fedjax_lite.uplink.rotation import BLOCK, check_block, rotated, rotated_back


def padded_size(message: Tree, block: int = BLOCK) -> int:
    """How many coordinates a message has in the rotation, which pads it as one flat vector to blocks of a power of two.

    >>> padded_size({"w": jnp.zeros((3, 2)), "b": jnp.zeros(())})
    8
    """
    whole("padded_size", "block", block, least=1)
    check_block("padded_size", block)
    return math.prod(_grid(message, block))


def flatten(key: Key, message: Tree, block: int) -> Float[Array, " d"]:
    """Make a message one flat vector, each block of its coordinates rotated."""
    rows, n = _grid(message, block)
    flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(message)])
    flat = jnp.pad(flat, (0, rows * n - flat.size))
    return rotated(key, flat.reshape(n, rows).T, block).reshape(-1)


def unflatten(key: Key, flat: Float[Array, " d"], like: Tree, block: int) -> Tree:
    """Undo `flatten`, in the shapes and dtypes of `like`."""
    rows = flat.reshape(_grid(like, block))
    flat = rotated_back(key, rows, rows).T.reshape(-1)
    leaves, structure = jax.tree.flatten(like)
    parts = jnp.split(flat, np.cumsum([x.size for x in leaves]))  # the last is the padding
    return jax.tree.unflatten(structure, [part.reshape(x.shape).astype(x.dtype) for part, x in zip(parts, leaves, strict=False)])


def _grid(message: Tree, block: int) -> tuple[int, int]:
    """How many blocks the rotation has, and how long they are: block i of B has the coordinates i, i + B, i + 2B, ... of the message."""
    size = sum(np.size(x) for x in jax.tree.leaves(message))
    n = min(block, 1 << max(size - 1, 0).bit_length())
    return -(-size // n), n
