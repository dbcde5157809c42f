"""Robust rules by coordinate order: median and trimmed mean."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.aggregators.lift import from_stack
from fedjax_lite.base import Aggregator, Number


def median() -> Aggregator:
    """The median of each coordinate over the clients present; of an even number, the mean of the two in the middle.

    Breaks down when half of the clients are Byzantine. Weights other than 0 do not matter; a message of NaN counts as one of
    +infinity. O(clients log clients) a coordinate.

    Source: Yin et al. 2018, "Byzantine-robust distributed learning", definition 1.
    """

    def middle(rank, count):
        return (rank == (count - 1) // 2) | (rank == count // 2)

    return _average_of_ranks(middle)


def trimmed_mean(num_byzantine: Number) -> Aggregator:
    """Each coordinate's mean after its f smallest and its f largest values are dropped.

    (1 / (n - 2f)) sum of the values of rank f .. n-f-1, n the clients present. With n <= 2f nothing would be left: then the
    coordinate's median is taken.

    Args:
        num_byzantine: f, how many Byzantine clients to withstand; f >= 0. A message of NaN counts as one of +infinity.

    Raises:
        ValueError: if f is negative or not whole.

    Source: Yin et al. 2018, "Byzantine-robust distributed learning", definition 2.
    """
    if not isinstance(num_byzantine, jax.Array) and (num_byzantine != int(num_byzantine) or num_byzantine < 0):
        raise ValueError(f"trimmed_mean: num_byzantine must be a whole number and not negative, got {num_byzantine}")

    def kept(rank, count):
        trimmed = jnp.minimum(num_byzantine, (count - 1) // 2)
        return (rank >= trimmed) & (rank < count - trimmed)

    return _average_of_ranks(kept)


def _average_of_ranks(kept: Callable[[Int[Array, " clients"], Int[Array, ""]], Bool[Array, " clients"]]) -> Aggregator:
    """Average, coordinate by coordinate, the values whose rank among the clients present is kept."""

    def reduce(messages, cohort):
        present = cohort.weight > 0
        keep = kept(jnp.arange(present.shape[0]), jnp.sum(present)) & (jnp.sum(present) > 0)

        def leaf(x: Float[Array, "clients ..."]):
            column = (-1,) + (1,) * (x.ndim - 1)
            ordered = jnp.sort(jnp.where(present.reshape(column), x, jnp.inf), axis=0)
            chosen = jnp.where(keep.reshape(column), ordered, 0)
            return jnp.sum(chosen, axis=0) / jnp.maximum(jnp.sum(keep), 1).astype(x.dtype)

        return jax.tree.map(leaf, messages)

    return from_stack(reduce)
