"""The randomised Hadamard rotation: coordinates become alike, so that a coarse quantiser loses little on each coordinate."""

from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from fedjax_lite.base import Key, Tree
from fedjax_lite.ledger import Place, dense_bits
from fedjax_lite.tree import wide
from fedjax_lite.uplink.compressor import place_of, replaced
from fedjax_lite.uplink.feedback import transformation

BLOCK = 4096  # most coordinates that are rotated together
_SIGNS, _INNER = np.uint32(0x5167), np.uint32(0x1A7E)  # streams of a client's key: random signs, the inner compressor


class _Rotated(NamedTuple):
    """The uplink's state of one client."""

    inner: Tree  # the compressor's state
    place: Place  # numbers this rotation, so that rotations in a chain draw apart


def rotate(inner: optax.GradientTransformation, block: int = BLOCK) -> optax.GradientTransformationExtraArgs:
    r"""A compressor in rotated coordinates: random signs, then a Hadamard transform; and back.

    C(u) = R^-1 C'(R u), with R = H D / sqrt(n), D random signs, H H^T = n I.

    Each leaf is cut into rows of a power of two, padded with zeros: one row if it is no longer than `block`. The inner compressor
    sees leaves `[rows, n]`, the padding included, and its bits count it. Signs differ by client, round and leaf, so that
    errors of different clients are independent; the server, which knows round and id, draws the same ones at no cost.

    Args:
        inner: the compressor C', or a chain.
        block: the most coordinates that are rotated together, a power of two. Longer rows spread more, and pad more.

    Returns:
        An optax transformation of one message, leaf by leaf.

    Raises:
        TypeError: for an inner that is no optax transformation.
        ValueError: for a block that is no power of two.

    >>> transform, u = rotate(optax.identity()), jnp.array([1.0, 2.0, 3.0])
    >>> back, _ = transform.update(u, transform.init(u), key=jax.random.key(0))
    >>> np.round(back, 5).tolist()
    [1.0, 2.0, 3.0]

    Source: Suresh et al. 2017, "Distributed mean estimation with limited communication", section 3.
    """
    inner = transformation("rotate", inner)
    check_block("rotate", block)

    def init(message):
        turned = jax.tree.map(lambda x: _rows(wide(jnp.asarray(x)), block), message)
        return _Rotated(_with_message_bits(inner.init(turned), message, turned), Place("rotate"))

    def update(updates, state, params=None, *, key=None, **extra):
        del params
        if key is None:
            raise ValueError("uplink.rotate draws at random: give update the keyword key, as fl.federate does")
        signs = state.place.stream(jax.random.fold_in(key, _SIGNS))
        leaves, structure = jax.tree.flatten(updates)
        turned = jax.tree.unflatten(structure, [rotated(jax.random.fold_in(signs, i), x, block) for i, x in enumerate(leaves)])
        decoded, after = inner.update(turned, state.inner, None, key=jax.random.fold_in(key, _INNER), **extra)
        back = [rotated_back(jax.random.fold_in(signs, i), y, leaves[i]) for i, y in enumerate(jax.tree.leaves(decoded))]
        return jax.tree.unflatten(structure, back), _Rotated(_with_message_bits(after, updates, turned), state.place)

    return optax.GradientTransformationExtraArgs(init, update)


def rotated(key: Key, x: Float[Array, "..."], block: int) -> Float[Array, "rows n"]:
    """Rotate `x` in rows of at most `block` coordinates, in float32 or wider; keeps the norm."""
    rows = _rows(wide(x), block)
    return hadamard(rows * _signs(key, rows)) / np.sqrt(rows.shape[1]).astype(rows.dtype)


def rotated_back(key: Key, y: Float[Array, "rows n"], like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Invert `rotated` with the same `key`, to the shape and dtype of `like`."""
    rows = hadamard(y) * _signs(key, y) / np.sqrt(y.shape[1]).astype(y.dtype)
    return rows.reshape(-1)[: like.size].reshape(like.shape).astype(like.dtype)


def hadamard(x: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """Apply the Walsh-Hadamard transform to the last axis, a power of two, in Sylvester's order; not normalised.

    H_{ab} = H_a (x) H_b: the row becomes a grid with axes of at most 64, and each axis takes one matmul.

    >>> hadamard(jnp.array([1.0, 2.0, 3.0, 4.0])).tolist()
    [10.0, -2.0, -4.0, 0.0]
    """
    power = x.shape[-1].bit_length() - 1
    parts = max(1, -(-power // 6))
    grid = [2 ** (power // parts + (i < power % parts)) for i in range(parts)]
    y, axis = x.reshape(*x.shape[:-1], *grid), x.ndim - 1
    for side in grid:  # a matmul moves the first axis of the grid to the end: after all matmuls the axes are in order
        y = jnp.tensordot(y, jnp.asarray(_matrix(side), x.dtype), axes=((axis,), (0,)), precision=jax.lax.Precision.HIGHEST)
    return y.reshape(x.shape)


def check_block(name: str, block: int) -> None:
    """Refuse a `block` that is no power of two, and so has no Hadamard matrix in Sylvester's order."""
    if not isinstance(block, int) or isinstance(block, bool) or block < 1 or block & (block - 1):
        raise ValueError(f"{name}: block must be a power of two such as {BLOCK}, got {block!r}")


def _with_message_bits(state: Tree, message: Tree, turned: Tree) -> Tree:
    """Give the places in `state` the bits of the leaves of `message`, not of the padded leaves of `turned`."""
    before, factor = dict(place_of("", message).leaves), dense_bits(message) / max(dense_bits(turned), 1)

    def leaf(path, bits):
        return path, before[path] if path in before else round(factor * bits)

    return replaced(lambda place: replace(place, leaves=tuple(leaf(*each) for each in place.leaves)), state)


def _matrix(side: int) -> np.ndarray:
    """Return the Hadamard matrix `[side, side]` in Sylvester's order."""
    return reduce(np.kron, [np.array([[1, 1], [1, -1]])] * (side.bit_length() - 1), np.ones((1, 1)))


def _rows(x: Float[Array, "..."], block: int) -> Float[Array, "rows n"]:
    """Cut `x` into rows of a power of two, at most `block`, padded with zeros."""
    n = min(block, 1 << max(x.size - 1, 0).bit_length())
    rows = -(-x.size // n)
    return jnp.pad(x.reshape(-1), (0, rows * n - x.size)).reshape(rows, n)


def _signs(key: Key, like: Array) -> Array:
    """Draw random signs like `like`, 32 from a word: a tenth of the time of a word for each sign."""
    words = jax.random.bits(key, (-(-like.size // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1
    return (1 - 2 * bits.reshape(-1)[: like.size].astype(like.dtype)).reshape(like.shape)
