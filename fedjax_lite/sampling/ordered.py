"""Take the first of a sampler's order who are there, without asking the whole population."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedjax_lite.base import Key
from fedjax_lite.sampling.participation import Sampler

__all__ = ["first_there", "has_order"]

LEAST = 64  # positions that are asked at once, at least


def has_order(sampler: Sampler) -> bool:
    """Return whether a sampler chooses the first clients of an order of the whole population."""
    return hasattr(sampler, "order")


def first_there(
    sampler: Sampler, key: Key, sizes: Array, round: Any, there: Callable[[Array], Array], clients: int
) -> tuple[Int[Array, " clients"], Bool[Array, " clients"]]:
    """Return the first `clients` of a sampler's order who are there, and which of these slots found a client.

    Positions are asked in chunks until enough are found, so with a share s of the population there the cost is that of clients / s.

    Args:
        sampler: one with an order: uniform, everyone, cyclic or weighted.
        key, sizes, round: as given to the sampler.
        there: ids `[n]` -> bool `[n]`.
        clients: at most the population.

    >>> from fedjax_lite.sampling import cyclic
    >>> ids, found = first_there(cyclic(2), jax.random.key(0), jnp.ones(5, int), 1, lambda ids: ids != 3, 2)  # 2, 3, 4, 0, 1
    >>> ids.tolist(), found.tolist()
    ([2, 4], [True, True])
    """
    population = sizes.shape[0]
    at = getattr(sampler, "order")(key, sizes, round)
    chunk = min(max(LEAST, 2 * clients), population)

    def more(carry):
        begin, count, _ = carry
        return (count < clients) & (begin < population)

    def look(carry):
        begin, count, ids = carry
        ahead, left = jnp.arange(chunk, dtype=jnp.int32), population - begin
        asked = at(begin + jnp.minimum(ahead, left - 1)).astype(jnp.int32)
        here = there(asked) & (ahead < left)
        slot = jnp.where(here, count + jnp.cumsum(here, dtype=jnp.int32) - 1, clients)
        return begin + jnp.minimum(chunk, left), count + jnp.sum(here, dtype=jnp.int32), ids.at[slot].set(asked, mode="drop")

    start = (jnp.int32(0), jnp.int32(0), jnp.zeros(clients, jnp.int32))
    _, count, ids = jax.lax.while_loop(more, look, start)
    return ids, jnp.arange(clients) < count
