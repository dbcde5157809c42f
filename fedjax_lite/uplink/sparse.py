"""Sparse messages: the largest coordinates of the whole pytree, or random coordinates; leaves are never concatenated."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from fedjax_lite.base import Number, Tree
from fedjax_lite.ledger import bits_of, count
from fedjax_lite.refuse import is_number
from fedjax_lite.shuffle import permute
from fedjax_lite.tree import wide
from fedjax_lite.uplink.compressor import compressor

SEED = 32  # bits of a random seed


def top_k(share: Number) -> optax.GradientTransformationExtraArgs:
    r"""Only the k coordinates of the largest absolute value, of the whole message.

    C(u)_i = u_i if |u_i| is among the k largest, else 0; exactly k are kept, of equal values those that come first.
    Biased, with ||u - C(u)||^2 <= (1 - k/d) ||u||^2: put it in `error_feedback`. Bits: k values, and k positions of ceil(log2 d).

    Args:
        share: k / d, in (0, 1]; may be traced. k is share * d rounded, and at least 1.

    Returns:
        An optax transformation of one message.

    Raises:
        ValueError: for a share outside (0, 1].

    >>> transform = top_k(0.5)
    >>> sparse, bits = transform.update(jnp.array([1.0, -3.0, 2.0, 0.5]), transform.init(jnp.zeros(4)))
    >>> sparse.tolist(), bits.payload.item(), bits.side.item()
    ([0.0, -3.0, 2.0, 0.0], 64.0, 4.0)

    Source: Stich, Cordonnier, Jaggi 2018, "Sparsified SGD with memory", definition 2.1 and lemma A.1.
    """
    _check("top_k", share)

    def encode(message, draw):
        del draw
        leaves, structure = jax.tree.flatten(message)
        k, d = _kept(share, count(message)), count(message)
        keep = _largest(leaves, k)
        sparse = [jnp.where(chosen, x, jnp.zeros_like(x)) for x, chosen in zip(leaves, keep, strict=True)]
        values, positions = _bits(leaves, keep), [(d - 1).bit_length() * number for number in _numbers(keep)]
        return jax.tree.unflatten(structure, sparse), values, positions

    return compressor("top_k", encode, draws=False)


def random_k(share: Number, unbiased: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Only k random coordinates of the whole message, scaled up so that the mean is right.

    C(u)_i = (d/k) u_i for k of the d coordinates, else 0. E C(u) = u; E||C(u) - u||^2 = (d/k - 1) ||u||^2.
    Bits: k values, and the 32 of the seed that server and client draw the coordinates from.

    Args:
        share: k / d, in (0, 1]; may be traced. k is share * d rounded, and at least 1.
        unbiased: False leaves the factor d/k out: ||C(u) - u|| <= ||u||, as `error_feedback` needs.

    Returns:
        An optax transformation of one message.

    Raises:
        ValueError: for a share outside (0, 1].

    >>> transform = random_k(0.5)
    >>> sparse, bits = transform.update(jnp.ones(4), transform.init(jnp.ones(4)), key=jax.random.key(0))
    >>> sorted(sparse.tolist()), bits.payload.item(), bits.side.item()
    ([0.0, 0.0, 2.0, 2.0], 64.0, 32.0)

    Source: Konečný et al. 2016, "Federated learning: strategies for improving communication efficiency", section 3 (random mask).
    """
    _check("random_k", share)

    def encode(message, draw):
        d = count(message)
        k, key = _kept(share, d), draw(0)
        keep = [permute(key, d, index) < k for index in _indices(message)]
        leaves, structure = jax.tree.flatten(message)

        def scaled(x):
            return wide(x) * (d / jnp.asarray(k).astype(wide(x).dtype)) if unbiased else x

        sparse = [jnp.where(chosen, scaled(x), 0) for x, chosen in zip(leaves, keep, strict=True)]
        return jax.tree.unflatten(structure, sparse), _bits(leaves, keep), SEED

    return compressor("random_k", encode, lengthens=unbiased)


def _check(name: str, share: Number) -> None:
    """Refuse a share outside (0, 1]; a tracer is not checked."""
    if not isinstance(share, jax.Array) and not (is_number(share) and 0 < share <= 1):
        raise ValueError(f"{name}: share must be in (0, 1], the part of the coordinates that is sent, got {share!r}")


def _kept(share: Number, d: int) -> Int[Array, ""]:
    """Return k, `share` * `d` rounded, from 1 to `d`."""
    if not isinstance(share, jax.Array):
        return jnp.int32(min(max(round(share * d), min(d, 1)), d))
    k = jnp.clip(jnp.round(share * d), min(d, 1), d).astype(jnp.int32)
    return jnp.where(share < 1, k, d)  # a float32 knows k to 24 bits: a share of 1 keeps all d


def _numbers(keep: list[Array]) -> list[Number]:
    """Count the kept coordinates of each leaf, as float32 scalars: an int32 could not hold their bits."""
    return [jnp.sum(chosen, dtype=jnp.int32).astype(jnp.float32) for chosen in keep]


def _bits(leaves: list[Array], keep: list[Array]) -> list[Number]:
    """Return the bits of the kept values of each leaf."""
    return [bits_of(x) * number for x, number in zip(leaves, _numbers(keep), strict=True)]


def _indices(message: Tree) -> list[Int[Array, "..."]]:
    """Number the coordinates of `message` from 0 through all leaves, int32 in the leaves' shapes."""
    indices, first = [], 0
    for x in jax.tree.leaves(message):
        indices.append(first + jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape))
        first += x.size
    return indices


def _largest(leaves: list[Array], k: Int[Array, ""]) -> list[Array]:
    """Mark exactly `k` coordinates of the largest absolute value, a mask for each leaf; of equal values the first.

    Non-negative floats have the order of the integers with the same bits, so a threshold is found bit by bit, by counting.
    """
    dtype = jnp.result_type(*(wide(x) for x in leaves))
    word = jnp.uint64 if dtype.itemsize == 8 else jnp.uint32
    order = [jax.lax.bitcast_convert_type(jnp.abs(x.astype(dtype)), word) for x in leaves]
    threshold = _highest(lambda t: _total([x >= t for x in order]), k, jnp.zeros((), word), 8 * dtype.itemsize - 1)
    above, equal = [x > threshold for x in order], [x == threshold for x in order]
    missing, d = k - _total(above), sum(x.size for x in leaves)
    backwards = [d - 1 - index for index in _indices(leaves)]
    # Mostly all coordinates at the threshold are kept: 0 bits then save the passes that choose among them.
    bits = jnp.where(_total(equal) == missing, 0, d.bit_length())
    last = _highest(lambda t: _total([e & (i >= t) for e, i in zip(equal, backwards, strict=True)]), missing, jnp.int32(0), bits)
    return [a | (e & (i >= last)) for a, e, i in zip(above, equal, backwards, strict=True)]


def _highest(counted: Callable[[Array], Array], k: Array, zero: Array, bits: int | Array) -> Array:
    """Find the highest t of `bits` bits with counted(t) >= `k`, `counted` falling; a t with counted(t) = `k` ends the search."""

    def undecided(search):
        bit, _, number = search
        return (bit > 0) & (number != k)

    def halve(search):
        bit, t, number = search
        higher = t | (jnp.ones_like(zero) << (bit - 1).astype(zero.dtype))
        number_of_higher = counted(higher)
        enough = number_of_higher >= k
        return bit - 1, jnp.where(enough, higher, t), jnp.where(enough, number_of_higher, number)

    return jax.lax.while_loop(undecided, halve, (jnp.asarray(bits, jnp.int32), zero, jnp.int32(-1)))[1]


def _total(masks: list[Array]) -> Int[Array, ""]:
    """Count the True coordinates of all masks."""
    return jnp.asarray(sum(jnp.sum(mask, dtype=jnp.int32) for mask in masks), jnp.int32)
