"""Make a compressor from a function, and number the compressors of one name in an uplink, so that they draw apart."""

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool

from fedjax_lite import tree
from fedjax_lite.base import Key, Number, Tree
from fedjax_lite.ledger import Place, Sent, bits_of, count

Draw = Callable[[int], Key]  # number of a leaf -> its key
Bits = Number | list[Number]  # of the whole message, or a list with a number for each leaf
SCALE = 32  # bits of a norm, a minimum or a maximum


def compressor(
    name: str, encode: Callable[[Tree, Draw], tuple[Tree, Bits, Bits]], draws: bool = True, lengthens: bool = False
) -> optax.GradientTransformationExtraArgs:
    """A compressor from a function that returns the message decoded by the server, and the bits sent.

    Args:
        name: for errors, and the name of the random stream. Compressors of different names draw apart, and in an uplink of
            `fl.federate` so do compressors of the same name (`fl.uplink.apart`).
        encode: `(message, draw) -> decoded, payload bits, side bits`; `draw(i)` is the key for leaf i, of this client in this
            round. The decoded leaves are cast to the message's dtypes. A message that is not finite is decoded as NaN, for the
            aggregator to see. Bits are a number for the whole message, or a list with a number for each leaf: then a chain can count
            the bits of the leaves that no later compressor is given.
        draws: whether the compressor is random, so that `update` needs the keyword `key`.
        lengthens: whether the decoded message is scaled up, so that the mean is right: `error_feedback` refuses the compressor.

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
        if not count(updates):  # no leaves: optax.masked may leave out all of them
            return updates, nothing_sent(place)
        if draws and key is None:
            raise ValueError(f"uplink.{name} draws at random: give update the keyword key, as fl.federate does")
        stream: Any = place.stream(jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))) if draws else None
        decoded, *bits = encode(updates, lambda leaf: jax.random.fold_in(stream, leaf))
        leaves = [each if isinstance(each, list) else [0.0] * len(place.leaves) for each in bits]
        shared = [0.0 if isinstance(each, list) else each for each in bits]
        parts = [jnp.asarray(x).astype(jnp.float32) for each, rest in zip(leaves, shared, strict=True) for x in [*each, rest]]
        decoded = spoilt_where_not(all_finite(updates), tree.cast_like(decoded, updates))
        return decoded, Sent(jnp.stack(parts).reshape(2, -1), place)

    return optax.GradientTransformationExtraArgs(init, update)


def nothing_sent(place: Place) -> Sent:
    """Return a `Sent` of 0 bits for the compressor at `place`."""
    return Sent(jnp.zeros((2, len(place.leaves) + 1), jnp.float32), place)


def all_finite(message: Tree) -> Bool[Array, ""]:
    """Return whether all coordinates of `message` are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(message)] or [jnp.bool_(True)]))


def spoilt_where_not(condition: Bool[Array, ""], message: Tree) -> Tree:
    """Return `message` where `condition` holds, else NaN in every coordinate."""
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.asarray(jnp.nan, x.dtype)), message)


def apart(transform: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A transformation whose compressors draw apart from each other, also compressors of the same name.

    `fl.federate` applies `apart` to every uplink; use it only to call a chain's `update` yourself.

    Args:
        transform: an optax transformation, mostly a chain.

    Returns:
        The same transformation, with compressors of one name numbered in its state.

    >>> import jax.numpy as jnp
    >>> from fedjax_lite.uplink.sparse import random_k
    >>> twice, u = apart(optax.chain(random_k(0.5), random_k(0.5))), jnp.ones(64)
    >>> int(jnp.sum(twice.update(u, twice.init(u), key=jax.random.key(0))[0] > 0)) < 32
    True
    """
    transform = optax.with_extra_args_support(transform)
    return optax.GradientTransformationExtraArgs(lambda params: _numbered(transform.init(params)), transform.update)


def place_of(name: str, message: Tree, state: Tree = (), lengthens: bool = False) -> Place:
    """Return the place of the compressor `name` for `message`, with the number of its place in `state`, else 0."""
    leaves = [(jax.tree_util.keystr(path), x.size * bits_of(x)) for path, x in jax.tree_util.tree_leaves_with_path(message)]
    return Place(name, tuple(leaves), next((place.number for place in places(state) if place.name == name), 0), lengthens)


def places(state: Tree) -> list[Place]:
    """List the places in `state`, in the order of its leaves."""
    return [x for x in jax.tree.leaves(state, is_leaf=_is_place) if _is_place(x)]


def replaced(fn, state: Tree) -> Tree:
    """Replace each place in `state` by `fn(place)`."""
    return jax.tree.map(lambda x: fn(x) if _is_place(x) else x, state, is_leaf=_is_place)


def _numbered(state: Tree) -> Tree:
    """Number the places of each name in `state` from 0, in the order of leaves."""
    before: Counter[str] = Counter()

    def number(place: Place) -> Place:
        before[place.name] += 1
        return replace(place, number=before[place.name] - 1)

    return replaced(number, state)


def _is_place(x) -> bool:
    return isinstance(x, Place)
