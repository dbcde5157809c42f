"""The rows that clients keep: one stack, into which `Client.place.row` points, changed in place."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import NO_LIMIT, Client, Tree
from fedjax_lite.engine.placement import CLIENTS_AXIS

BLOCK = 2**22  # bytes that one device passes to the next at once: few enough to stay in the cache


def row_of(cohort: Client) -> Array:
    """Return which row is whose; past the end where a slot has none."""
    assert cohort.place.row is not None
    return cohort.place.row


def gathered(cohort: Client, rows: Tree) -> tuple[Client, Tree]:
    """Fetch a cohort's rows, and let the cohort point into them: slot k to row k."""
    slots = jnp.arange(cohort.id.shape[0], dtype=jnp.int32)
    return cohort._replace(place=cohort.place._replace(row=slots)), tree.take(rows, row_of(cohort))


def gathering(run: Callable) -> Callable:
    """Let a function `(..., cohort, rows) -> (part, rows, metrics)` work on the cohort's rows alone, which are put back behind it."""

    def on_all(*arguments):
        *front, cohort, rows = arguments
        part, mine, metrics = run(*front, *gathered(cohort, rows))
        return part, tree.put(rows, row_of(cohort), mine), metrics

    return on_all


def exchange(rows: Tree, changed: Int[Array, "devices slots"]) -> Tree:
    """Take over the rows that other devices have changed, inside a `shard_map`; a number past the end is no row."""
    devices, slots = changed.shape
    size = sum(x.size // len(x) * x.dtype.itemsize for x in jax.tree.leaves(rows))
    at_once = max(1, min(slots, BLOCK // max(size, 1)))
    changed = jnp.pad(changed, ((0, 0), (0, -slots % at_once)), constant_values=NO_LIMIT).reshape(devices, -1, at_once)
    me, ring = jax.lax.axis_index(CLIENTS_AXIS), [(k, (k + 1) % devices) for k in range(devices)]

    def around(k, rows):
        """Pass every device's block k around the ring."""

        def on(hop, passing):
            rows, block = passing
            block = jax.lax.ppermute(block, CLIENTS_AXIS, ring)
            return tree.put(rows, changed[(me - hop - 1) % devices, k], block), block

        return jax.lax.fori_loop(0, devices - 1, on, (rows, tree.take(rows, changed[me, k])))[0]

    return jax.lax.fori_loop(0, changed.shape[1], around, rows) if size else rows
