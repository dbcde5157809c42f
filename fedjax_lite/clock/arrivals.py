"""The host's table of arrivals, from an algorithm's own demand on the clients' devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.availability import Availability
from fedjax_lite.availability.availability import check_law
from fedjax_lite.base import Algorithm, Tree, Whole
from fedjax_lite.clock.devices import Devices, check_devices, seconds
from fedjax_lite.clock.events import play
from fedjax_lite.clock.idle import There, idle
from fedjax_lite.clock.steady import play_steadily
from fedjax_lite.clock.table import Arrivals, Event
from fedjax_lite.clock.tiers import play_tiers
from fedjax_lite.engine.pace import Asynchrony
from fedjax_lite.refuse import a_count, positive
from fedjax_lite.sampling.draw import demand_of_all

__all__ = ["arrivals", "durations_of", "simulated"]


def arrivals(
    algorithm: Algorithm,
    data: Any,
    params: Tree,
    devices: Devices,
    *,
    rounds: Whole,
    concurrency: Whole | None = None,
    order: str = "uniform",
    availability: Availability | None = None,
    pause: float = 60.0,
    seed: Whole = 0,
) -> Arrivals:
    """What arrives for each step of an asynchronous server: `concurrency` clients train at once, each for as long as its device takes.

    A client takes bits / 8 / (bytes a second) to receive and to send, and steps / (steps a second) to compute: by the steps and bits of
    round 0, the same every time. All arrivals of one time are taken in before anyone is started. A client whose upload waits in the buffer
    is started again after the server's step at the earliest, so that no client is in a row twice. A longer table begins with the shorter.

    Args:
        algorithm: one with an `asynchrony`, such as `fl.algorithms.fedbuff(...)`.
        data: the population, or the clients' numbers of examples `[population]`. Clients without examples are never started.
        params: the global model at the start, or its shapes.
        devices: for instance of `fl.clock.lognormal(population)`.
        rounds: steps of the server.
        concurrency: how many clients train at once. With tiers: tiers * buffer, or None.
        order: how an idle client is chosen: "uniform", "queue" (who has waited longest; ids in order at the start) or "examples" (with a
            probability proportional to its number of examples).
        availability: only clients that are there are started, and one that is not there when it has finished is lost.
        pause: seconds until a slot that found nobody there asks again.
        seed: of the order.

    Returns:
        `Arrivals`, for `fl.clock.arriving`.

    Raises:
        ValueError: for an algorithm that waits for its cohort, a buffer larger than the concurrency, a concurrency larger than the
            population, an upload older than the algorithm's window, durations of zero, clients that are never there.

    >>> import fedjax_lite as fl, optax
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedbuff(loss_fn, optax.sgd(0.5), batches=fl.Batches(None, steps=5), population=3, buffer=2)
    >>> devices = fl.clock.given([5.0, 2.5, 1.0])  # local steps a second
    >>> table = fl.clock.arrivals(algorithm, np.ones(3, int), jnp.zeros(()), devices, concurrency=2, rounds=3, order="queue")
    >>> table.ids.tolist(), table.ages.tolist(), table.seconds.tolist()
    ([[0, 1], [0, 1], [2, 0]], [[0, 0], [0, 0], [2, 0]], [2.0, 5.0, 6.0])
    """
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"arrivals: algorithm must be a fl.Algorithm, such as fl.algorithms.fedbuff(...), got {algorithm!r}")
    how = algorithm.asynchrony
    if how is None:
        raise ValueError("arrivals: this algorithm waits for its whole cohort: take an asynchronous one, such as fl.algorithms.fedbuff")
    sizes = np.asarray(data if isinstance(data, np.ndarray | jax.Array) else getattr(data, "size", data))
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
        raise ValueError(f"arrivals: data must be a population, or numbers of examples [population], got {sizes.dtype}{list(sizes.shape)}")
    durations = durations_of(algorithm, sizes, params, devices)
    there = _there(availability, len(sizes))
    return simulated(durations, how, sizes=sizes, rounds=rounds, concurrency=concurrency, order=order, there=there, pause=pause, seed=seed)


def simulated(
    durations: np.ndarray,
    how: Asynchrony,
    *,
    rounds: Whole,
    sizes: np.ndarray | None = None,
    concurrency: Whole | None = None,
    order: str = "uniform",
    there: There | None = None,
    pause: float = 60.0,
    seed: Whole = 0,
    log: list[Event] | None = None,
) -> Arrivals:
    """Make the table for clients who take `durations` seconds; a `log` is given each client that finishes, in the order of time."""
    rounds, seed = a_count("arrivals", "rounds", rounds), a_count("arrivals", "seed", seed, least=0)
    positive("arrivals", "pause", pause)
    sizes = np.ones(len(durations), np.int64) if sizes is None else sizes
    ids = np.flatnonzero(sizes > 0)
    bad = ids[~((durations[ids] > 0) & np.isfinite(durations[ids]))]
    if bad.size:
        raise ValueError(
            f"arrivals: client {bad[0]} takes {durations[bad[0]]} s for a round: give it a finite speed, and a link or local steps "
            "that take time"
        )
    at_once = _concurrency(concurrency, how, len(ids))
    rng = np.random.default_rng(seed)
    if how.tiers:
        return play_tiers(durations, ids, sizes, how, order=order, rng=rng, rounds=rounds, there=there, pause=pause, log=log)
    if order == "uniform" and there is None and log is None:
        found = play_steadily(durations, ids, np.random.default_rng(seed), how, concurrency=at_once, rounds=rounds)
        if found is not None:
            return found
    waiting = idle(order, ids, sizes, rng, there)
    return play(durations, waiting, how, concurrency=at_once, rounds=rounds, there=there, pause=pause, log=log)


def durations_of(algorithm: Algorithm, sizes: np.ndarray, params: Tree, devices: Devices) -> np.ndarray:
    """Return the seconds of a round of every client, float64 `[population]`, by the steps and bits of round 0."""
    check_devices("arrivals", devices)
    if len(devices.steps) != len(sizes):
        raise ValueError(f"arrivals: devices are those of {len(devices.steps)} clients, and there are {len(sizes)}: make them for as many")
    key = jax.random.key(0)
    asked = demand_of_all(algorithm, jax.eval_shape(algorithm.init, params, key), key, sizes)
    speeds, demand = jax.tree.map(lambda x: np.asarray(x, np.float64), (devices, asked))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what takes no finite time is refused by name
        return np.asarray(seconds(speeds, demand).total)


def _there(availability: Availability | None, population: int) -> There | None:
    """Return the host's question whether a client is there; None where all always are."""
    if availability is None:
        return None
    check_law("arrivals", "availability", availability)
    availability.check(population)
    if availability.on_host is not None:
        return availability.on_host(population)
    return lambda k, t: bool(availability.there(jnp.int32(k), jnp.float32(t)))


def _concurrency(concurrency: Whole | None, how: Asynchrony, clients: int) -> int:
    """Return how many clients train at once; refuse more than there are, and fewer than a buffer takes."""
    if how.tiers:
        all_tiers = how.tiers * how.buffer
        if concurrency is not None and a_count("arrivals", "concurrency", concurrency) != all_tiers:
            raise ValueError(
                f"arrivals: concurrency={concurrency}, and {how.tiers} tiers of {how.buffer} clients each train {all_tiers} at once: leave "
                "concurrency out, or make them equal"
            )
        return all_tiers
    if concurrency is None:
        raise ValueError("arrivals: give concurrency, how many clients train at once")
    at_once = a_count("arrivals", "concurrency", concurrency)
    if how.buffer > at_once:
        raise ValueError(
            f"arrivals: buffer={how.buffer} is larger than concurrency={at_once}, and a client is in a buffer once: lower buffer, or raise "
            "concurrency (in a configuration [sampling] clients)"
        )
    if at_once > clients:
        raise ValueError(f"arrivals: concurrency={at_once} is more than the {clients} clients with examples: lower it")
    return at_once
