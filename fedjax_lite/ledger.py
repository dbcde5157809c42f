"""What a message costs: every compressor keeps the bits it has just sent in its state, and the round finds them there."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.base import Key, Tree


@jax.tree_util.register_static
@dataclass(frozen=True)
class Place:
    """A part of a compressor's state that holds no numbers; jax takes it for structure."""

    name: str
    leaves: tuple[tuple[str, int], ...] = ()  # of those that it was given the path and the bits as they are
    number: int = 0  # how many of its name stand before it
    lengthens: bool = False  # whether it scales what it sends up, to be unbiased

    def stream(self, key: Key) -> Key:
        """The key of one of several: the first draws as one that is alone does."""
        return jax.random.fold_in(key, self.number) if self.number else key


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


def count(message: Tree) -> int:
    """How many values a tree of arrays has, d in the papers; static."""
    return sum(x.size for x in jax.tree.leaves(message))


def bits_of(x) -> int:
    """Bits of one value of an array."""
    return 8 * x.dtype.itemsize


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
