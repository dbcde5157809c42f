"""A compressor from one function, and its place among others: the leaves that it is given, the how many-th of its name it is."""

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

Draw = Callable[[int], Key]  # leaf -> its key
Bits = Number | list[Number]  # of the message, or of each leaf
SCALE = 32  # bits of a norm, a minimum, a maximum


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


def finite(message: Tree) -> Bool[Array, ""]:
    """Whether all of a message is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(message)] or [jnp.bool_(True)]))


def spoilt_where_not(condition: Bool[Array, ""], message: Tree) -> Tree:
    """A message as it is, or NaN in its place."""
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.asarray(jnp.nan, x.dtype)), message)


def apart(transform: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A transformation whose compressors draw apart from each other, also where one stands there several times.

    `fl.federate` does it of every uplink; it is for those who call a chain's `update` themselves.

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
    """The place of a compressor that is given a message, with the number that its state's place has."""
    leaves = [(jax.tree_util.keystr(path), x.size * bits_of(x)) for path, x in jax.tree_util.tree_leaves_with_path(message)]
    return Place(name, tuple(leaves), next((place.number for place in places(state) if place.name == name), 0), lengthens)


def places(state: Tree) -> list[Place]:
    """Those in a state, in their order."""
    return [x for x in jax.tree.leaves(state, is_leaf=_is_place) if _is_place(x)]


def replaced(fn, state: Tree) -> Tree:
    """A state with `fn(place)` in each place's stead."""
    return jax.tree.map(lambda x: fn(x) if _is_place(x) else x, state, is_leaf=_is_place)


def _numbered(state: Tree) -> Tree:
    before: Counter[str] = Counter()

    def number(place: Place) -> Place:
        before[place.name] += 1
        return replace(place, number=before[place.name] - 1)

    return replaced(number, state)


def _is_place(x) -> bool:
    return isinstance(x, Place)
