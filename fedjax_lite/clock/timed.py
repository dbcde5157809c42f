"""The virtual clock of a synchronous run: who can be reached, how long each client takes, and whom the server waits for."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedjax_lite.availability import Availability
from fedjax_lite.availability.availability import check_law
from fedjax_lite.base import Client, Key, Number, Tree, Whole
from fedjax_lite.clock.close import Policy, Trip, away, closed, in_by, in_time, reached
from fedjax_lite.clock.devices import Devices, check_devices, of_clients, seconds
from fedjax_lite.clock.time import Time, midnight
from fedjax_lite.engine.pace import Demand
from fedjax_lite.refuse import a_count, is_number, plain, positive
from fedjax_lite.sampling.draw import looks
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
            `everyone`, `cyclic`, `weighted`); of another sampler's cohort the slots of those who cannot be reached are empty. One that
            looks at losses (`oort`, `power_of_choice`) looks first, and what candidates do for that takes no time.
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
    if not callable(sampler) or getattr(sampler, "clocked", False):
        raise TypeError(f"timed: sampler must be one without a clock, such as fl.sampling.uniform(10), got {sampler!r}")
    if hasattr(sampler, "arrivals"):
        raise ValueError("timed: sampler is a table of arrivals, which has its own clock: take fl.clock.arriving(table) alone")
    check_devices("timed", devices)
    if availability is not None:
        check_law("timed", "availability", availability)
    pause, deadline, over_selection = plain(pause), plain(deadline), plain(over_selection)
    positive("timed", "pause", pause)
    if deadline is not None:
        positive("timed", "deadline", deadline)
    if not isinstance(partial_work, bool):
        raise ValueError(f"timed: partial_work must be True or False, got {partial_work!r}")
    if not is_number(over_selection) or not 1 <= over_selection < math.inf:
        raise ValueError(f"timed: over_selection must be a number of at least 1, such as 1.3, got {over_selection!r}")
    if over_selection > 1 and not has_order(sampler):
        raise ValueError("timed: over_selection needs a sampler with an order, such as fl.sampling.uniform(10): ask for more clients there")
    if partial_work and deadline is None:
        raise ValueError("timed: partial_work is what a deadline cuts off, and there is none: give deadline")
    policy = Policy(
        sampler, devices, availability, deadline, over_selection, partial_work, a_count("timed", "least", least), pause
    )  # fmt: skip
    told = participation_of(sampler) if availability is None and deadline is None and over_selection == 1 else None
    look = partial(_look, policy) if looks(sampler) else None
    return Remembering(partial(_begin, policy), partial(_sample, policy), look, partial(_check, policy), told, sampler, clocked=True)


class Memory(NamedTuple):
    """The time, and the memory of a sampler that has one itself."""

    time: Time
    sampler: Tree = ()


def _begin(policy: Policy, sizes: Any) -> Memory:
    """Return the memory at the start of a run."""
    return Memory(midnight(), policy.sampler.init(sizes) if isinstance(policy.sampler, Remembering) else ())


def _sample(
    policy: Policy, key: Key, sizes: Array, round: Any, memory: Memory, demand: Callable[[Client], Demand]
) -> tuple[Client, Memory]:
    """Draw the clients that the server asks, and leave those whom it does not wait for."""
    if len(policy.devices.steps) != len(sizes):
        raise ValueError(f"timed: devices are of {len(policy.devices.steps)} clients, and there are {len(sizes)}: make them for as many")
    if policy.availability is not None:
        policy.availability.check(len(sizes))
    if isinstance(policy.sampler, Remembering):
        asked, inner = policy.sampler.sample(key, sizes, round, memory.sampler, demand)
        asked, memory = away(policy, asked, memory.time.seconds), memory._replace(sampler=inner)
        most = len(asked.id)
    else:
        asked, most = _asked(policy, key, sizes, round, memory.time)
    if policy.least > most:
        raise ValueError(f"timed: least={policy.least} uploads never come from {most} clients of a round: lower least, or ask for more")
    asked, trip = in_time(policy, asked, demand(asked))
    if looks(policy.sampler):  # who is left of them is known when it has looked
        return asked._replace(sums=asked.sums | trip._asdict()), memory
    asked, after = closed(policy, asked, trip, most, memory.time)
    return asked, memory._replace(time=after)


def _look(policy: Policy, params: Tree, data: Any, asked: Client, memory: Memory) -> tuple[Client, Memory]:
    """Let the sampler look at the clients whom the server asks, and leave those whom it does not wait for."""
    assert isinstance(policy.sampler, Remembering) and policy.sampler.look is not None
    chosen, inner = policy.sampler.look(params, data, asked, memory.sampler)
    trip = Trip(*(chosen.sums[name] for name in Trip._fields))
    chosen = chosen._replace(sums={name: x for name, x in chosen.sums.items() if name not in Trip._fields})
    chosen, after = closed(policy, chosen, trip, len(chosen.id), memory.time)
    return chosen, Memory(after, inner)


def _asked(policy: Policy, key: Key, sizes: Array, round: Any, time: Time) -> tuple[Client, int]:
    """Return the clients whom the server asks at a time, and the most whose uploads it takes."""
    if not has_order(policy.sampler):
        chosen = away(policy, policy.sampler(key, sizes, round), time.seconds)
        return chosen, len(chosen.id)
    if policy.availability is None and policy.over_selection == 1:
        chosen = policy.sampler(key, sizes, round)
        return chosen, len(chosen.id)
    clients = min(getattr(policy.sampler, "clients")(len(sizes)), len(sizes))
    many = min(math.ceil(policy.over_selection * clients - 1e-9), len(sizes))
    ids, found = first_there(policy.sampler, key, sizes, round, lambda ids: reached(policy, ids, time.seconds), many)
    return cohort(key, sizes, ids, found), clients


def _check(policy: Policy, sizes: np.ndarray, demand_of_all: Callable[[], Demand]) -> None:
    """Refuse a deadline that no client can meet."""
    if not is_number(policy.deadline):
        return
    demand = demand_of_all()
    least = demand._replace(steps=jnp.where(demand.steps > 0, 1 + demand.passes, 0)) if policy.partial_work else demand
    found = seconds(of_clients(policy.devices, jnp.arange(len(sizes))), least)
    total = np.where(np.asarray(demand.steps) > 0, np.asarray(found.total), np.inf)
    if not in_by(total, policy.deadline).any():
        raise ValueError(
            f"timed: deadline={policy.deadline:g} is over before any client can have sent its update: the fastest takes "
            f"{total.min():.3g} seconds; lengthen it, or give the devices more speed"
        )
