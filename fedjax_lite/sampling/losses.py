"""The global model's losses on the examples of a cohort's clients, for samplers that look at them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fedjax_lite.base import Client, Tree
from fedjax_lite.engine import placement
from fedjax_lite.models.loss_fn import LossFn, values_of
from fedjax_lite.shuffle import permute
from fedjax_lite.tree import take

__all__ = ["ClientLosses", "client_losses", "losses_by"]

BATCH, LANES = 256, 16  # examples of a client that go through the model at once, clients at once


class ClientLosses(NamedTuple):
    """Losses of each client of a cohort over its examples, or over some of them; 0 for a client without any."""

    mean: Float[Array, " clients"]
    mean_square: Float[Array, " clients"]


def client_losses(loss_fn: LossFn, params: Tree, data: Any, cohort: Client, examples: int | None = None) -> tuple[ClientLosses, Client]:
    """Return the mean and the mean square of each client's losses, and the cohort with the places of its examples.

    Args:
        loss_fn: as given to client work; called with key None.
        params: the global model.
        data: a population, or the piece of it that a streamed round has.
        examples: of each client so many at random, as many as it has at most; None: all.

    Raises:
        ValueError: where each device has the examples of its own clients only.
    """
    cohort = data.locate(cohort)
    if cohort.place.device is not None and placement.device_count() > 1:
        raise ValueError(
            "sampling: this sampler looks at the losses of clients whose examples are split over devices: keep the population in memory, "
            "or use one device"
        )
    start = cohort.place.start
    assert start is not None  # as `locate` sets it
    most = data.largest if examples is None else min(examples, data.largest)
    batch, lanes = min(BATCH, most), min(LANES, cohort.id.shape[0])
    size = jnp.minimum(cohort.size, most)

    def of_client(slot: Int[Array, ""], position: Int[Array, " batch"]) -> tuple[Array, Array, Array]:
        """Sum losses, their squares and their number over one batch of one slot's client."""
        there = position < size[slot]
        row = jnp.minimum(position, jnp.maximum(size[slot] - 1, 0))
        if examples is not None:
            row = permute(cohort.key[slot], jnp.maximum(cohort.size[slot], 1), row)
        rows = start[slot] + row
        total, count = values_of(loss_fn, params, take(data.examples, rows), None, there)["loss"]
        each = jnp.where(there & (count > 0), total / jnp.where(count > 0, count, 1), 0)
        return jnp.sum(each), jnp.sum(each**2), jnp.sum(there & (count > 0), dtype=each.dtype)

    def of_lanes(slots: Int[Array, " lanes"]) -> tuple[Array, Array, Array]:
        def add(i, sums):
            more = jax.vmap(of_client, (0, None))(slots, i * batch + jnp.arange(batch))
            return jax.tree.map(jnp.add, sums, more)

        shapes = jax.eval_shape(jax.vmap(of_client, (0, None)), slots, jnp.arange(batch))
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, jnp.max((size[slots] + batch - 1) // batch), add, nothing)

    clients = cohort.id.shape[0]
    chunks = -(-clients // lanes)
    slots = jnp.minimum(jnp.arange(chunks * lanes), clients - 1).reshape(chunks, lanes)  # the last lanes repeat the last slot
    total, square, count = (x.reshape(-1)[:clients] for x in jax.lax.map(of_lanes, slots))
    count = jnp.maximum(count, 1)
    return ClientLosses(total / count, square / count), cohort


def losses_by(name: str, loss_fn: Any) -> Callable[..., Any]:
    """Return a sampler's loss function; refuse what is none."""
    if not callable(loss_fn):
        raise TypeError(f"{name}: loss_fn must be a function (params, batch, key) -> losses, got {loss_fn!r}")
    return loss_fn
