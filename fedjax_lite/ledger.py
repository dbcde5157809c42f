"""Count the bits of messages: every compressor keeps the bits of its last message in its state, where the round finds them."""

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
    """The static part of a compressor's state, which jax treats as structure."""

    name: str
    leaves: tuple[tuple[str, int], ...] = ()  # path and uncompressed bits of each leaf that the compressor was given
    number: int = 0  # the number of compressors of this name before it in the uplink
    lengthens: bool = False  # True: the compressor scales values up, to be unbiased

    def stream(self, key: Key) -> Key:
        """Return the compressor's own key; the first of its name draws from `key` itself."""
        return jax.random.fold_in(key, self.number) if self.number else key


class Cost(NamedTuple):
    """The bits of one message, float32 scalars."""

    payload: Float[Array, "*clients"]  # the values
    side: Float[Array, "*clients"]  # positions, scales and seeds, which decode the values


class Sent(NamedTuple):
    """The bits of one client's last message, by leaf; they may depend on traced arguments."""

    bits: Float[Array, "*clients 2 parts"]  # payload and side; for each leaf, and last for parts that all leaves share
    place: Place

    @property
    def payload(self) -> Float[Array, "*clients"]:
        """The bits of the values."""
        return self.bits[..., 0, :].sum(-1)

    @property
    def side(self) -> Float[Array, "*clients"]:
        """The bits of positions, scales and seeds, which decode the values."""
        return self.bits[..., 1, :].sum(-1)


def sent(state: Tree, message: Tree) -> Cost:
    """Return the bits of the message that the uplink in `state` sent last; without a compressor the uncompressed bits of `message`.

    In a chain a leaf's last compressor decides its bits. From the last to the first, a compressor counts for its leaves that no
    later compressor was given (`optax.masked`, `optax.partition`); leaves without a compressor are sent uncompressed. Leaves are known by
    their paths; under a transformation that makes other leaves of them (`optax.flatten`), by whether their bits still fit.

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
    """Record the bits of a message as a whole; `dense` are its uncompressed bits."""
    parts = [0.0, payload, 0.0, side]
    return Sent(jnp.stack([jnp.asarray(x, jnp.float32) for x in parts]).reshape(2, 2), Place(name, ((name, int(dense)),)))


def dense_bits(message: Tree) -> float:
    """Return the uncompressed bits of a tree of arrays; static.

    >>> dense_bits(jnp.ones((2, 3)))
    192.0
    """
    return float(sum(x.size * bits_of(x) for x in jax.tree.leaves(message)))


def count(message: Tree) -> int:
    """Count the values in a tree of arrays, d in the papers; static."""
    return sum(x.size for x in jax.tree.leaves(message))


def bits_of(x) -> int:
    """Return the bits of one value of an array."""
    return 8 * x.dtype.itemsize


def entropy_bits(symbols: Any) -> float:
    r"""Return the size of symbols after an ideal entropy coder that knows each symbol's frequency; on the host.

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
    """Return the bits that the compressors in an uplink's state keep, in their order."""
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Sent))
    return [x for x in leaves if isinstance(x, Sent)]
