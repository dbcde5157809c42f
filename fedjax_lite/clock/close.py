"""Whom a server waits for, and when a round ends."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.availability import Availability
from fedjax_lite.base import Client
from fedjax_lite.clock.devices import Devices, of_clients, seconds
from fedjax_lite.clock.time import HOUR, Time, later
from fedjax_lite.engine.pace import Demand
from fedjax_lite.sampling.participation import Sampler

__all__ = ["Policy", "Trip", "away", "closed", "in_by", "in_time", "reached"]

ROUNDING = 1e-6  # what sums and quotients of a few float32 are off by, and more


class Policy(NamedTuple):
    """The arguments of `timed`."""

    sampler: Sampler
    devices: Devices
    availability: Availability | None
    deadline: Any
    over_selection: float
    partial_work: bool
    least: int
    pause: Any


class Trip(NamedTuple):
    """A client's way through a round, from the broadcast to its upload."""

    taking: Float[Array, "*clients"]  # seconds
    trains: Bool[Array, "*clients"]  # False: it has no examples
    received: Float[Array, "*clients"]  # bits
    sent: Float[Array, "*clients"]  # bits


def in_time(policy: Policy, asked: Client, demand: Demand) -> tuple[Client, Trip]:
    """Return the cohort with the steps that its clients have time for, and each client's way through the round."""
    devices = of_clients(policy.devices, asked.id)
    found = seconds(devices, demand)
    if policy.partial_work:
        spare = jnp.floor((policy.deadline - found.receive - found.send) * devices.steps * (1 + ROUNDING)).astype(jnp.int32)
        steps = jnp.minimum(demand.steps - demand.passes, jnp.maximum(spare - demand.passes, 1))
        asked, demand = asked._replace(steps=jnp.minimum(asked.steps, steps)), demand._replace(steps=steps + demand.passes)
        found = seconds(devices, demand)
    return asked, Trip(found.total, demand.steps > 0, demand.received, demand.sent)


def closed(policy: Policy, asked: Client, trip: Trip, most: int, time: Time) -> tuple[Client, Time]:
    """Leave out whom the server does not wait for, and count; also return the time when the round is over."""
    here = (asked.weight > 0) & (trip.trains > 0)
    lost = here & ~reached(policy, asked.id, time.seconds + trip.taking)
    pending = here & ~lost
    counts, length = _waited_for(policy, pending, trip.taking, most)
    after, late, first = later(time, length), pending & ~counts, jnp.arange(len(asked.id)) == 0
    told = {"seconds": first * length, "virtual_hours": first * (after.seconds / HOUR)}
    told |= {"waited_for": counts, "too_late": late, "lost": lost}
    told["wasted_bits"] = jnp.where(late | lost, trip.received, 0) + jnp.where(late, trip.sent, 0)
    sums = asked.sums | {name: each.astype(jnp.float32) for name, each in told.items()}
    return asked._replace(weight=jnp.where(counts, asked.weight, 0), sums=sums), after


def _waited_for(policy: Policy, pending: Bool[Array, " n"], taking: Float[Array, " n"], most: int) -> tuple[Array, Array]:
    """Tell which uploads the server takes in, and after how many seconds the round ends."""
    counts = pending
    if most < len(taking):
        order = jnp.argsort(jnp.where(pending, taking, jnp.inf), stable=True)
        counts = counts & (jnp.zeros_like(order).at[order].set(jnp.arange(len(order))) < most)
    last = jnp.max(jnp.where(counts, taking, 0), initial=0)
    if policy.deadline is not None:
        counts, last = counts & in_by(taking, policy.deadline), jnp.minimum(last, policy.deadline)
    length = jnp.where(jnp.any(pending), last, policy.pause)
    return counts & (jnp.sum(counts) >= policy.least), length


def in_by(taking: Any, deadline: Any) -> Any:
    """Tell who has sent by a deadline; rounding makes nobody late, least who was cut off to be in time."""
    return taking <= deadline * (1 + 2 * ROUNDING)


def away(policy: Policy, cohort: Client, when: Any) -> Client:
    """Empty the slots of clients who cannot be reached at a second."""
    return cohort._replace(weight=jnp.where(reached(policy, cohort.id, when), cohort.weight, 0))


def reached(policy: Policy, ids: Int[Array, " n"], when: Any) -> Bool[Array, " n"]:
    """Ask availability for clients at a second, or at a second each."""
    if policy.availability is None:
        return jnp.ones(ids.shape, bool)
    return jax.vmap(policy.availability.there)(ids, when) if jnp.ndim(when) else policy.availability.there(ids, when)
