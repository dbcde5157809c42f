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
from fedjax_lite.uplink.place import Place, bits_of, place_of

Draw = Callable[[int], Key]  # leaf -> its key
Bits = Number | list[Number]  # of the message, or of each leaf
SCALE = 32  # bits of a norm, a minimum, a maximum


class Cost(NamedTuple):
    """The bits of one message, float32 scalars."""

    payload: Float[Array, "*clients"]  # the values
    side: Float[Array, "*clients"]  # what is needed to read them: positions, scales, seeds


class Sent(NamedTuple):
    """The bits of one client's last message, by leaf; they may depend on traced arguments."""

    bits: Float[Array, "*clients 2 parts"]  # payload and side; of each leaf, and last what all of them share
    place: Place

    @property
    def payload(self) -> Float[Array, "*clients"]:
        """Bits of the values."""
        return self.bits[..., 0, :].sum(-1)

    @property
    def side(self) -> Float[Array, "*clients"]:
        """Bits of what is needed to read them."""
        return self.bits[..., 1, :].sum(-1)


def compressor(
    name: str, encode: Callable[[Tree, Draw], tuple[Tree, Bits, Bits]], draws: bool = True, lengthens: bool = False
) -> optax.GradientTransformationExtraArgs:
    """A compressor from one function: what the server decodes, and how many bits it took.

    Args:
        name: for errors, and the name of its random stream. Compressors of other names draw apart from it, and in an uplink of
            `fl.federate` others of its name do, too (`fl.uplink.apart`).
        encode: `(message, draw) -> decoded, payload bits, side bits`; `draw(i)` is the key for leaf i, of this client in this
            round. The decoded leaves are cast to the message's dtypes. Of a message that is not finite NaN is decoded, for the
            aggregator to see. Bits are a number for the whole message, or a list with one for each leaf: then, where a later
            compressor in a chain is given some of the leaves, those of the others are known.
        draws: whether it is random, so that `update` needs the keyword `key`.
        lengthens: whether it scales what it sends up, so that the mean is right: `error_feedback` refuses it.

    Returns:
        An optax transformation of one message, whose state is a `Sent`.

    >>> half = compressor("half", lambda m, draw: (jax.tree.map(lambda x: x.astype(jnp.bfloat16), m), 16 * count(m), 0), draws=False)
    >>> half.update(jnp.ones(3), half.init(jnp.ones(3)))[1].payload.item()
    48.0
    """

    def init(message):
        return nothing_sent(place_of(name, message, lengthens=lengthens))

    def update(updates, state, params=None, *, key=None, **extra):
        del params, extra
        place = place_of(name, updates, state, lengthens)
        if not count(updates):  # nothing to compress, as where optax.masked leaves everything out
            return updates, nothing_sent(place)
        if draws and key is None:
            raise ValueError(f"uplink.{name} draws at random: give update the keyword key, as fl.federate does")
        stream: Any = place.stream(jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))) if draws else None
        decoded, *bits = encode(updates, lambda leaf: jax.random.fold_in(stream, leaf))
        leaves = [each if isinstance(each, list) else [0.0] * len(place.leaves) for each in bits]
        shared = [0.0 if isinstance(each, list) else each for each in bits]
        parts = [jnp.asarray(x).astype(jnp.float32) for each, rest in zip(leaves, shared, strict=True) for x in [*each, rest]]
        decoded = spoilt_where_not(finite(updates), tree.cast_like(decoded, updates))
        return decoded, Sent(jnp.stack(parts).reshape(2, -1), place)

    return optax.GradientTransformationExtraArgs(init, update)


def nothing_sent(place: Place) -> Sent:
    """No bits, of a compressor in this place."""
    return Sent(jnp.zeros((2, len(place.leaves) + 1), jnp.float32), place)


def sent(state: Tree, message: Tree) -> Cost:
    """What a message cost, from the uplink's state after it was sent; without a compressor what it takes as it is.

    Of compressors in a chain the last is what travels, leaf by leaf: from the last to the first, each counts for those of its leaves
    that none after it was given (`optax.masked`, `optax.partition`), and what none was given is sent as it is. Leaves are told
    apart by their paths; under a transformation that makes other leaves of them (`optax.flatten`), by whether they still fit.

    >>> [float(x) for x in sent((), {"w": jnp.ones((2, 3)), "b": jnp.ones(2, jnp.bfloat16)})]
    [224.0, 0.0]
    """
    left, taken = dense_bits(message), set()
    total = jnp.zeros(2, jnp.float32)
    for node in reversed(_nodes(state)):
        leaves = node.place.leaves
        counts = [path not in taken for path, _ in leaves]
        dense = sum(bits for path, bits in leaves if path not in taken)
        if any(counts) and dense <= left:
            total += jnp.sum(node.bits * np.array([[*counts, True]], np.float32), axis=1)
            left -= dense
            taken |= {path for path, _ in leaves if path}  # a message of one array, or one that was flattened, has no path
    return Cost(total[0] + jnp.float32(left), total[1])


def lump(name: str, payload: Any, side: Any, dense: float) -> Sent:
    """Bits of a message that are known as a whole, for `dense` bits of it as it is."""
    parts = [0.0, payload, 0.0, side]
    return Sent(jnp.stack([jnp.asarray(x, jnp.float32) for x in parts]).reshape(2, 2), Place(name, ((name, int(dense)),)))


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


def count(message: Tree) -> int:
    """How many values a tree of arrays has, d in the papers; static."""
    return sum(x.size for x in jax.tree.leaves(message))


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
