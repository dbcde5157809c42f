"""Distances between all messages of a cohort from their Gram matrix, summed leaf by leaf."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.aggregators.stack import gram
from fedjax_lite.base import Tree

Scores = Float[Array, " clients"]
Pairs = Float[Array, "clients clients"]


def squared_distances(messages: Tree, present: Bool[Array, " clients"]) -> Pairs:
    """||m_i - m_j||^2 of the clients present; infinity from or to an empty slot.

    Args:
        messages: leaves `[clients, ...]`; what empty slots hold does not matter.

    The difference G_ii + G_jj - 2 G_ij is known to a few rounding errors of G_ii + G_jj: what is smaller counts as 0, so that
    equal messages are at distance 0. Selections made by these distances are constant almost everywhere, so there is no gradient.
    """
    products = gram(jax.lax.stop_gradient(messages), present)
    squares = jnp.diagonal(products)
    lengths = squares[:, None] + squares[None, :]
    distances = lengths - 2 * products
    distances = jnp.where(distances > 8 * jnp.finfo(products.dtype).eps * lengths, distances, 0)
    return jnp.where(present[:, None] & present[None, :], distances, jnp.inf)


def sum_of_nearest(distances: Pairs, count: Int[Array, ""]) -> Scores:
    """The sum of the `count` smallest entries of each row, infinite ones counting as 0."""
    nearest = jnp.sort(distances, axis=1)
    taken = (jnp.arange(distances.shape[0]) < count)[None, :] & jnp.isfinite(nearest)
    return jnp.sum(jnp.where(taken, nearest, 0), axis=1)


def lowest(scores: Float[Array, "*rows clients"], count: Int[Array, ""]) -> Bool[Array, "*rows clients"]:
    """Which clients have the `count` lowest scores; of equal ones those in the lowest slots."""
    return jnp.argsort(jnp.argsort(scores, axis=-1, stable=True), axis=-1) < count
