"""The virtual clock of a synchronous run: who can be reached, how long each client takes, and whom the server waits for."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.availability import Availability
from fedjax_lite.base import Client, Key, Number, Whole
from fedjax_lite.clock.devices import Devices, check_devices, seconds
from fedjax_lite.clock.time import HOUR, Time, later, midnight
from fedjax_lite.engine.pace import Demand
from fedjax_lite.refuse import a_count, is_number, positive
from fedjax_lite.sampling.ordered import first_there, has_order
from fedjax_lite.sampling.participation import Remembering, Sampler, cohort, participation_of

__all__ = ["timed"]


def timed(
    sampler: Sampler,
    devices: Devices,
    *,
    availability: Availability | None = None,
    deadline: Number | None = None,
    over_selection: float = 1.0,
    partial_work: bool = False,
    least: Whole = 1,
    pause: Number = 60.0,
) -> Remembering:
    r"""Give every round a length in virtual seconds, and leave out whom the server does not wait for.

    t_k = bits received / (8 download_k) + steps / speed_k + bits sent / (8 upload_k);  the round lasts until the M-th upload that arrives,
    or the deadline.

    Uploads that arrive at the same time are taken in the order of the slots. A client that availability takes away before it has finished
    is lost, and the server does not wait for it. The server's own work and evaluation take no time. The clients that count are the fast
    ones: results lean towards their data.

    Args:
        sampler: chooses M clients. With availability or over-selection the first of its order who can be reached are asked (`uniform`,
            `everyone`, `cyclic`, `weighted`, `shuffled`); of another sampler's cohort the slots of those who cannot be reached are empty.
        devices: all clients' speeds and links, such as `fl.clock.lognormal(population)`.
        availability: who can be reached at a virtual second; everyone by default.
        deadline: seconds from a round's start after which no upload counts; None: the server waits.
        over_selection: ceil(over_selection * M) clients are asked, and the first M uploads count.
        partial_work: clients that the deadline would cut off make the steps that they have time for, at least one, and send in time.
        least: with fewer uploads the round is given up: the model stays as it is, and the time has passed.
        pause: seconds until the server asks again where nobody can be reached, or nobody reports.

    Returns:
        A sampler with a memory, the time. It adds metrics to each round: "seconds", "virtual_hours" (since the start), "waited_for"
        (uploads that count), "too_late", "lost", and "wasted_bits" (received and sent by clients who were asked in vain).

    Raises:
        ValueError: for numbers out of range; devices of another population, or without speed; over-selection of a sampler without an order;
            a deadline that no client can meet, when a run starts.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp, optax
    >>> data = fl.FederatedData.from_clients([{"x": jnp.ones(n)} for n in (1, 2, 8)])
    >>> loss_fn, batches = lambda params, batch, key: (params - batch["x"]) ** 2 / 2, fl.Batches(1)
    >>> algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=batches, population=3)
    >>> devices = fl.clock.Devices(steps=jnp.array([1.0, 1.0, 2.0]), download=jnp.full(3, jnp.inf), upload=jnp.full(3, jnp.inf))
    >>> sampler = fl.clock.timed(fl.sampling.everyone(), devices, deadline=3.0)
    >>> _, history = fl.simulate(algorithm, data, jnp.zeros(()), sampler, rounds=2, key=jax.random.key(0))
    >>> history["seconds"].tolist(), history["waited_for"].tolist(), history["too_late"].tolist()  # the third client would take 4
    ([3.0, 3.0], [2.0, 2.0], [1.0, 1.0])

    Source: Bonawitz et al. 2019, "Towards federated learning at scale: system design", section 2 (over-selection, deadline, give-up).
    """
    if isinstance(sampler, Remembering) or not callable(sampler):
        raise TypeError(f"timed: sampler must be a function of key, sizes and round, such as fl.sampling.uniform(10), got {sampler!r}")
    check_devices("timed", devices)
    positive("timed", "pause", pause)
    if deadline is not None:
        positive("timed", "deadline", deadline)
    if not is_number(over_selection) or not 1 <= over_selection < math.inf:
        raise ValueError(f"timed: over_selection must be a number of at least 1, such as 1.3, got {over_selection!r}")
    if over_selection > 1 and not has_order(sampler):
        raise ValueError("timed: over_selection needs a sampler with an order, such as fl.sampling.uniform(10): ask for more clients there")
    if partial_work and deadline is None:
        raise ValueError("timed: partial_work is what a deadline cuts off, and there is none: give deadline")
    policy = _Policy(
        sampler, devices, availability, deadline, over_selection, partial_work, a_count("timed", "least", least), pause
    )  # fmt: skip
    told = participation_of(sampler) if availability is None and deadline is None and over_selection == 1 else None
    return Remembering(lambda sizes: midnight(), partial(_sample, policy), None, partial(_check, policy), told)


class _Policy(NamedTuple):
    """The arguments of `timed`."""

    sampler: Sampler
    devices: Devices
    availability: Availability | None
    deadline: Any
    over_selection: float
    partial_work: bool
    least: int
    pause: Any


def _sample(policy: _Policy, key: Key, sizes: Array, round: Any, time: Time, demand: Callable[[Client], Demand]) -> tuple[Client, Time]:
    """Draw the clients that the server asks, and leave those whom it does not wait for."""
    if len(policy.devices.steps) != len(sizes):
        raise ValueError(f"timed: devices are of {len(policy.devices.steps)} clients, and there are {len(sizes)}: make them for as many")
    asked, most = _asked(policy, key, sizes, round, time)
    asked, taking, wanted = _in_time(policy, asked, demand(asked))
    here = (asked.weight > 0) & (wanted.steps > 0)
    lost = here & ~_there(policy, asked.id, time.seconds + taking)
    pending = here & ~lost
    counts, length = _waited_for(policy, pending, taking, most)
    after = later(time, length)
    first = jnp.arange(len(asked.id)) == 0
    late = pending & ~counts
    wasted = jnp.where(late | lost, wanted.received, 0) + jnp.where(late, wanted.sent, 0)
    told = {
        "seconds": first * length,
        "virtual_hours": first * (after.seconds / HOUR),
        "waited_for": counts,
        "too_late": late,
        "lost": lost,
    }
    sums = asked.sums | {name: each.astype(jnp.float32) for name, each in (told | {"wasted_bits": wasted}).items()}
    return asked._replace(weight=jnp.where(counts, asked.weight, 0), sums=sums), after


def _asked(policy: _Policy, key: Key, sizes: Array, round: Any, time: Time) -> tuple[Client, int]:
    """Return the clients whom the server asks at a time, and the most whose uploads it takes."""
    if not has_order(policy.sampler):
        chosen = policy.sampler(key, sizes, round)
        there = _there(policy, chosen.id, time.seconds)
        return chosen._replace(weight=jnp.where(there, chosen.weight, 0)), len(chosen.id)
    if policy.availability is None and policy.over_selection == 1:
        chosen = policy.sampler(key, sizes, round)
        return chosen, len(chosen.id)
    clients = min(getattr(policy.sampler, "clients")(len(sizes)), len(sizes))
    many = min(math.ceil(policy.over_selection * clients - 1e-9), len(sizes))
    ids, found = first_there(policy.sampler, key, sizes, round, lambda ids: _there(policy, ids, time.seconds), many)
    return cohort(key, sizes, ids, found), clients


def _in_time(policy: _Policy, asked: Client, demand: Demand) -> tuple[Client, Float[Array, " clients"], Demand]:
    """Return the cohort with the steps that its clients have time for, the seconds that each takes, and what it is asked."""
    found = seconds(policy.devices, asked.id, demand)
    if policy.partial_work:
        speed = tree.take(jnp.asarray(policy.devices.steps), asked.id)
        spare = jnp.floor((policy.deadline - found.receive - found.send) * speed * (1 + 1e-6)).astype(jnp.int32)
        steps = jnp.minimum(demand.steps - demand.passes, jnp.maximum(spare - demand.passes, 1))
        asked, demand = asked._replace(steps=jnp.minimum(asked.steps, steps)), demand._replace(steps=steps + demand.passes)
        found = seconds(policy.devices, asked.id, demand)
    return asked, found.receive + found.compute + found.send, demand


def _waited_for(policy: _Policy, pending: Bool[Array, " n"], taking: Float[Array, " n"], most: int) -> tuple[Array, Array]:
    """Tell which uploads the server takes in, and after how many seconds the round ends."""
    counts = pending
    if most < len(taking):
        order = jnp.argsort(jnp.where(pending, taking, jnp.inf), stable=True)
        counts = counts & (jnp.zeros_like(order).at[order].set(jnp.arange(len(order))) < most)
    last = jnp.max(jnp.where(counts, taking, 0), initial=0)
    if policy.deadline is not None:
        counts, last = counts & (taking <= policy.deadline), jnp.minimum(last, policy.deadline)
    length = jnp.where(jnp.any(pending), last, policy.pause)
    return counts & (jnp.sum(counts) >= policy.least), length


def _there(policy: _Policy, ids: Int[Array, " n"], when: Any) -> Bool[Array, " n"]:
    """Ask availability for clients at a second, or at a second each."""
    if policy.availability is None:
        return jnp.ones(ids.shape, bool)
    return jax.vmap(policy.availability.there)(ids, when) if jnp.ndim(when) else policy.availability.there(ids, when)


def _check(policy: _Policy, sizes: np.ndarray, demand: Demand) -> None:
    """Refuse a deadline that no client can meet, and an availability of which a client is never there."""
    if policy.availability is not None:
        policy.availability.check(len(sizes))
    if not is_number(policy.deadline):
        return
    least = demand._replace(steps=jnp.where(demand.steps > 0, 1 + demand.passes, 0)) if policy.partial_work else demand
    found = seconds(policy.devices, jnp.arange(len(sizes)), least)
    total = np.where(np.asarray(demand.steps) > 0, np.asarray(found.receive + found.compute + found.send), np.inf)
    if not (total <= policy.deadline).any():
        raise ValueError(
            f"timed: deadline={policy.deadline:g} is over before any client can have sent its update: the fastest takes "
            f"{total.min():.3g} seconds; lengthen it, or give the devices more speed"
        )
