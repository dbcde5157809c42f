"""Distances between all messages of a cohort from their Gram matrix, summed leaf by leaf."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.aggregators.stack import average, gram
from fedjax_lite.base import Tree

Scores = Float[Array, " clients"]
Pairs = Float[Array, "clients clients"]
COMMON = 2.0**-8  # a squared distance over a squared length: half of a float32's digits are left


def squared_distances(messages: Tree, present: Bool[Array, " clients"]) -> Pairs:
    """||m_i - m_j||^2 of the clients present; infinity from or to an empty slot.

    Args:
        messages: leaves `[clients, ...]`; what empty slots hold does not matter.

    The difference G_ii + G_jj - 2 G_ij is known to a few rounding errors of G_ii + G_jj: what is smaller counts as 0, so that
    equal messages are at distance 0. Where half of the messages lie close together beside their length, a common part is taken off
    first, and then it is known to rounding errors of their distances from the one in their middle. Selections made by these distances are
    constant almost everywhere, so there is no gradient.
    """
    messages = jax.lax.stop_gradient(messages)
    as_they_are, lengths = _between(messages, present)
    middle, radius = middle_of(as_they_are, present)
    close = radius < COMMON * jnp.sum(jnp.where(middle, lengths, 0))
    return jax.lax.cond(close, lambda: _between(messages, present, average(middle, messages))[0], lambda: as_they_are)


def middle_of(distances: Pairs, present: Bool[Array, " clients"]) -> tuple[Bool[Array, " clients"], Float[Array, ""]]:
    """The message whose nearer half of the others, itself included, is nearest; and the squared distance that they are within.

    With less than half of the messages anywhere it is among the others, or as near to them as they are to each other.
    """
    half = jnp.clip(jnp.sum(present) // 2, 0, len(present) - 1)
    nearest = jnp.where(present, jnp.take(jnp.sort(distances, axis=1), half, axis=1), jnp.inf)
    first = jnp.argmin(nearest)
    return present & (jnp.arange(len(present)) == first), nearest[first]


def _between(messages: Tree, present: Bool[Array, " clients"], center: Tree | None = None) -> tuple[Pairs, Float[Array, " clients"]]:
    """Squared distances, and squared lengths, from a center."""
    products = gram(messages, present, center)
    squares = jnp.diagonal(products)
    lengths = squares[:, None] + squares[None, :]
    distances = lengths - 2 * products
    distances = jnp.where(distances > 8 * jnp.finfo(products.dtype).eps * lengths, distances, 0)
    return jnp.where(present[:, None] & present[None, :], distances, jnp.inf), squares


def sum_of_nearest(distances: Pairs, count: Int[Array, ""]) -> Scores:
    """The sum of the `count` smallest entries of each row, infinite ones counting as 0."""
    nearest = jnp.sort(distances, axis=1)
    taken = (jnp.arange(distances.shape[0]) < count)[None, :] & jnp.isfinite(nearest)
    return jnp.sum(jnp.where(taken, nearest, 0), axis=1)


def lowest(scores: Float[Array, "*rows clients"], count: Int[Array, ""]) -> Bool[Array, "*rows clients"]:
    """Which clients have the `count` lowest scores; of equal ones those in the lowest slots."""
    return jnp.argsort(jnp.argsort(scores, axis=-1, stable=True), axis=-1) < count
