"""Distances between all messages of a cohort from their Gram matrix, summed leaf by leaf."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.aggregators.sums import average, gram
from fedjax_lite.base import Tree

Scores = Float[Array, " clients"]
Pairs = Float[Array, "clients clients"]
COMMON = 2.0**-8  # squared distance over squared length, below which cancellation costs over 8 of a float32's 24 bits


def squared_distances(messages: Tree, present: Bool[Array, " clients"]) -> Pairs:
    """Return ||m_i - m_j||^2 for all pairs, without a gradient; infinity from or to an empty slot.

    Args:
        messages: leaves `[clients, ...]`; values in empty slots do not matter.
        present: False for an empty slot.

    G_ii + G_jj - 2 G_ij has rounding errors of the size of G_ii + G_jj. Smaller results count as 0, so equal messages have distance 0.
    If half of the messages lie close together compared with their length, the message in their middle is subtracted first: rounding
    errors are then of the size of the distances from the middle. Selections by distance are constant almost everywhere, hence no gradient.
    """
    messages = jax.lax.stop_gradient(messages)
    as_they_are, lengths = _between(messages, present)
    middle, radius = middle_of(as_they_are, present)
    close = radius < COMMON * jnp.sum(jnp.where(middle, lengths, 0))
    return jax.lax.cond(close, lambda: _between(messages, present, average(middle, messages))[0], lambda: as_they_are)


def middle_of(distances: Pairs, present: Bool[Array, " clients"]) -> tuple[Bool[Array, " clients"], Float[Array, ""]]:
    """Mark the message whose n//2 nearest neighbours lie within the smallest radius; also return the squared radius.

    With outliers fewer than half, the marked message is no outlier, or as near to the rest as the rest are to each other.
    """
    half = jnp.clip(jnp.sum(present) // 2, 0, len(present) - 1)
    nearest = jnp.where(present, jnp.take(jnp.sort(distances, axis=1), half, axis=1), jnp.inf)
    first = jnp.argmin(nearest)
    return present & (jnp.arange(len(present)) == first), nearest[first]


def _between(messages: Tree, present: Bool[Array, " clients"], center: Tree | None = None) -> tuple[Pairs, Float[Array, " clients"]]:
    """Return squared distances of all pairs, and squared norms `[clients]` of the messages minus `center`."""
    products = gram(messages, present, center)
    squares = jnp.diagonal(products)
    lengths = squares[:, None] + squares[None, :]
    distances = lengths - 2 * products
    distances = jnp.where(distances > 8 * jnp.finfo(products.dtype).eps * lengths, distances, 0)
    return jnp.where(present[:, None] & present[None, :], distances, jnp.inf), squares


def sum_of_nearest(distances: Pairs, count: Int[Array, ""]) -> Scores:
    """Sum the `count` smallest entries of each row of `distances`; infinite entries count as 0."""
    nearest = jnp.sort(distances, axis=1)
    taken = (jnp.arange(distances.shape[0]) < count)[None, :] & jnp.isfinite(nearest)
    return jnp.sum(jnp.where(taken, nearest, 0), axis=1)


def lowest(scores: Float[Array, "*rows clients"], count: Int[Array, ""]) -> Bool[Array, "*rows clients"]:
    """Mark the `count` lowest of `scores` in each row; of equal scores the lowest slots."""
    return jnp.argsort(jnp.argsort(scores, axis=-1, stable=True), axis=-1) < count
