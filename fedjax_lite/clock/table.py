"""The host's table of arrivals: what each step of an asynchronous server takes in."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Arrivals", "Event", "no_step", "table"]

MOST = 10_000  # turns of a host's loop, and more for a large population, after which no step of the server is expected any more


class Arrivals(NamedTuple):
    """What arrives for each step of the server; made on the host in NumPy. As arrays of JAX it can be stacked over seeds and indexed."""

    ids: Int[Any, "steps buffer"]  # clients whose uploads the step takes in; -1: an empty slot
    ages: Int[Any, "steps buffer"]  # steps of the server between a client's start and its arrival
    seconds: Float[Any, " steps"]  # virtual time of the step, in float64 on the host
    passed: Float[Any, " steps"]  # seconds since the step before
    lost: Int[Any, " steps"]  # clients out of reach when they had finished, since the step before
    too_old: Int[Any, " steps"]  # uploads dropped for their age, since the step before
    tier: Int[Any, " steps"]  # whose round it is, 0 the fastest; 0 without tiers
    events: Any = 0  # how many clients finished, in all: they are in a step, lost or dropped


class Event(NamedTuple):
    """One client that finished."""

    time: float
    client: int
    started: float
    version: int  # of the model that it started from
    age: int  # -1: it was lost
    step: int  # the step of the server that its upload completed, from 1; 0: none


def table(ids: Any, ages: Any, seconds: Any, *, lost: Any = 0, too_old: Any = 0, tier: Any = 0) -> Arrivals:
    """Make the table of clients and ages `[steps, buffer]`, and of the steps: their times and counts `[steps]`."""
    ids, ages = (np.asarray(x, np.int32) for x in (ids, ages))
    seconds = np.asarray(seconds, np.float64)
    lost, too_old, tier = (np.broadcast_to(np.asarray(x, np.int32), seconds.shape).copy() for x in (lost, too_old, tier))
    events = int((ids >= 0).sum() + lost.sum() + too_old.sum())
    return Arrivals(ids, ages, seconds, np.diff(seconds, prepend=0.0), lost, too_old, tier, events)


def no_step(t: float, version: int, lost: int, too_old: int) -> str:
    """Say that no buffer fills."""
    return (
        f"arrivals: after step {version} of the server no buffer fills up to {t:.6g} s, with {lost} clients lost before they had finished "
        f"and {too_old} uploads too old: give clients that are there for longer, faster devices, or a larger window"
    )
