"""What a message costs: every compressor keeps the bits it has just sent in its state, and the round finds them there."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from fedjax_lite import tree
from fedjax_lite.base import Key, Number, Tree

Draw = Callable[[int], Key]  # leaf -> its key
SCALE = 32  # bits of a norm, a minimum, a maximum


class Sent(NamedTuple):
    """The bits of one client's last message, float32 scalars; they may depend on traced arguments."""

    payload: Float[Array, "*clients"] | Number  # the values
    side: Float[Array, "*clients"] | Number  # what is needed to read them: positions, scales, seeds
    dense: Float[Array, "*clients"] | Number  # what the leaves that were compressed would have taken as they were


def compressor(
    name: str, encode: Callable[[Tree, Draw], tuple[Tree, Number, Number]], draws: bool = True
) -> optax.GradientTransformationExtraArgs:
    """A compressor from one function: what the server decodes, and how many bits it took.

    Args:
        name: for errors, and the name of its random stream: compressors in one chain draw apart from each other.
        encode: `(message, draw) -> decoded, payload bits, side bits`; `draw(i)` is the key for leaf i, of this client in this
            round. The decoded leaves are cast to the message's dtypes. Of a message that is not finite NaN is decoded, for the
            aggregator to see.
        draws: whether it is random, so that `update` needs the keyword `key`.

    Returns:
        An optax transformation of one message, whose state is a `Sent`.

    >>> half = compressor("half", lambda m, draw: (jax.tree.map(lambda x: x.astype(jnp.bfloat16), m), 16 * count(m), 0), draws=False)
    >>> half.update(jnp.ones(3), half.init(jnp.ones(3)))[1].payload.item()
    48.0
    """

    def update(updates, state, params=None, *, key=None, **extra):
        del state, params, extra
        if not count(updates):  # nothing to compress, as where optax.masked leaves everything out
            return updates, Sent(*jnp.zeros(3, jnp.float32))
        if draws and key is None:
            raise ValueError(f"uplink.{name} draws at random: give update the keyword key, as fl.federate does")
        stream: Any = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode()))) if draws else None
        decoded, payload, side = encode(updates, lambda leaf: jax.random.fold_in(stream, leaf))
        bits = (payload, side, dense_bits(updates))
        decoded = spoilt_where_not(finite(updates), tree.cast_like(decoded, updates))
        return decoded, Sent(*(jnp.asarray(x).astype(jnp.float32) for x in bits))

    return optax.GradientTransformationExtraArgs(lambda params: Sent(*jnp.zeros(3, jnp.float32)), update)


def sent(state: Tree, message: Tree) -> Sent:
    """What a message cost, from the uplink's state after it was sent; without a compressor what it takes as it is.

    Of compressors in a chain the last is what travels. Those before it count where it left leaves alone (`optax.masked`,
    `optax.partition`): from the last to the first, each counts whose leaves fit in what is not yet accounted for, and what
    none compressed is sent as it is.

    >>> [float(x) for x in sent((), {"w": jnp.ones((2, 3)), "b": jnp.ones(2, jnp.bfloat16)})]
    [224.0, 0.0, 224.0]
    """
    whole = left = jnp.asarray(dense_bits(message)).astype(jnp.float32)
    payload = side = jnp.zeros_like(whole)
    for node in reversed(_nodes(state)):
        counts = node.dense <= left * (1 + 1e-6)  # float32 sums of parts, off by their rounding
        take = jnp.where(counts, 1, 0).astype(jnp.float32)
        payload, side, left = payload + take * node.payload, side + take * node.side, left - take * node.dense
    return Sent(payload + jnp.maximum(left, 0), side, whole)


def rescaled(state: Tree, factor: float) -> Tree:
    """The state of a compressor that was given leaves of another size, as if it had been given those that they stand for."""

    def node(x):
        return x._replace(dense=x.dense * jnp.float32(factor)) if isinstance(x, Sent) else x

    return jax.tree.map(node, state, is_leaf=lambda x: isinstance(x, Sent))


def dense_bits(message: Tree) -> float:
    """Bits of a tree of arrays as they are; static.

    >>> dense_bits(jnp.ones((2, 3)))
    192.0
    """
    return float(sum(x.size * bits_of(x) for x in jax.tree.leaves(message)))


def finite(message: Tree) -> Bool[Array, ""]:
    """Whether all of a message is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(message)] or [jnp.bool_(True)]))


def spoilt_where_not(condition: Bool[Array, ""], message: Tree) -> Tree:
    """A message as it is, or NaN in its place."""
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.asarray(jnp.nan, x.dtype)), message)


def bits_of(x: Array) -> int:
    """Bits of one value of an array."""
    return 8 * x.dtype.itemsize


def count(message: Tree) -> int:
    """How many values a tree of arrays has, d in the papers; static."""
    return sum(x.size for x in jax.tree.leaves(message))


def wide(x: Array) -> Array:
    """An array in at least float32: half precision is computed in that."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def entropy_bits(symbols: Any) -> float:
    r"""The size of symbols after an ideal entropy coder that knows how often each occurs; on the host.

    n H = -sum_s n_s log2(n_s / n), with n_s how often s occurs: a lower bound of what arithmetic coding reaches without context,
    the table of frequencies left out. The second number beside the ledger's, which counts symbols of a fixed length.

    Args:
        symbols: any array of discrete values. A decoded leaf will do: it has as many distinct values as its scheme has symbols.

    Returns:
        Bits, a float; 0 for an array of equal values.

    >>> entropy_bits(np.array([0, 0, 1, 2]))
    6.0

    Source: Shannon 1948, "A mathematical theory of communication", theorem 9.
    """
    times = np.unique(np.asarray(symbols), return_counts=True)[1]
    return float(-(times * np.log2(times / times.sum())).sum()) + 0.0  # not -0.0


def _nodes(state: Tree) -> list[Sent]:
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Sent))
    return [x for x in leaves if isinstance(x, Sent)]
