"""Where a compressor stands: which leaves of the message it was given, and the how many-th of its name it is."""

from collections import Counter
from dataclasses import dataclass, replace

import jax
import optax

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


def bits_of(x) -> int:
    """Bits of one value of an array."""
    return 8 * x.dtype.itemsize


def _numbered(state: Tree) -> Tree:
    before: Counter[str] = Counter()

    def number(place: Place) -> Place:
        before[place.name] += 1
        return replace(place, number=before[place.name] - 1)

    return replaced(number, state)


def _is_place(x) -> bool:
    return isinstance(x, Place)
