"""Schedules, each with the clock that it is read on.

An optax schedule is a function of a count. In a federated run there are three counts. A schedule handed to a client's optax
optimizer would silently be read on a fourth count, which restarts with every round; so each schedule names its clock.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from fedjax_lite.base import Tree
from fedjax_lite.optimizer_state import fit, keeps_rate
from fedjax_lite.refuse import is_number

__all__ = ["Clock", "Scheduled", "on_client_step", "on_round", "on_step"]

Schedule = Callable[[Array], Array]


class Clock(NamedTuple):
    """The three counts a schedule can be read on, all int32 scalars."""

    round: Int[Array, ""] | int
    step: Int[Array, ""] | int | None = None
    client_step: Int[Array, ""] | int | None = None


class Scheduled(NamedTuple):
    """A schedule together with the name of its clock."""

    schedule: Schedule
    clock: str

    def __call__(self, clock: Clock) -> Array:
        return jnp.asarray(self.schedule(getattr(clock, self.clock)))


def on_round(schedule: Schedule) -> Scheduled:
    """Read a schedule at the round's number: the same rate for all local steps of a round.

    >>> rate = on_round(optax.exponential_decay(0.1, transition_steps=1, decay_rate=0.5))
    >>> float(rate(Clock(round=2)))
    0.02500000037252903
    """
    return Scheduled(schedule, "round")


def on_step(schedule: Schedule) -> Scheduled:
    """Read a schedule at the local step within the round: it starts anew in every round, on purpose.

    >>> import fedjax_lite as fl
    >>> rate = fl.on_step(optax.linear_schedule(1.0, 0.0, transition_steps=4))
    >>> [float(rate(fl.schedules.Clock(round=9, step=step))) for step in range(3)]
    [1.0, 0.75, 0.5]
    """
    return Scheduled(schedule, "step")


def on_client_step(schedule: Schedule) -> Scheduled:
    """Read a schedule at the number of steps the client has taken in all rounds so far (kept in its own state).

    >>> import fedjax_lite as fl
    >>> rate = fl.on_client_step(optax.linear_schedule(1.0, 0.0, transition_steps=4))
    >>> float(rate(fl.schedules.Clock(round=9, step=0, client_step=3)))
    0.25
    """
    return Scheduled(schedule, "client_step")


def transformation_at(optimizer, learning_rate) -> Callable[[Clock], optax.GradientTransformationExtraArgs]:
    """Return the function: clock -> optax transformation, with the rate in `optimizer`, or with `learning_rate` at that clock."""
    if isinstance(optimizer, optax.GradientTransformation):
        if learning_rate is not None:
            raise ValueError(
                "optimizer is already an optax transformation, so learning_rate has nowhere to go: "
                "pass the factory (optax.sgd, not optax.sgd(0.1)) together with learning_rate"
            )
        fixed = fit(optax.with_extra_args_support(optimizer))
        return lambda clock: fixed
    if not callable(optimizer):
        raise TypeError(f"optimizer must be an optax transformation or a factory rate -> transformation, got {optimizer!r}")
    if learning_rate is None:
        raise ValueError(
            "optimizer is a factory (a function of the rate), so it needs learning_rate: pass learning_rate=0.1 or a schedule "
            "with its clock, or call the factory yourself: optax.sgd(0.1)"
        )
    if callable(learning_rate) and not isinstance(learning_rate, Scheduled):
        raise ValueError(
            f"learning_rate is a schedule without a clock ({learning_rate!r}): wrap it in fl.on_round, fl.on_step or fl.on_client_step"
        )
    if not isinstance(learning_rate, Scheduled | jax.Array | np.ndarray) and not is_number(learning_rate):
        raise ValueError(f"learning_rate must be a number, an array or a schedule with its clock, got {learning_rate!r}")
    if is_number(learning_rate) and not 0 <= learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be finite and not negative, got {learning_rate}")

    def at(clock):
        rate = learning_rate(clock) if isinstance(learning_rate, Scheduled) else learning_rate
        transformation = fit(optax.with_extra_args_support(optimizer(rate)))
        return transformation._replace(init=partial(_init_without_rate, transformation.init))

    return at


def _init_without_rate(init_fn: Callable, params: Tree) -> Tree:
    """Make the state of a factory's transformation; refuse a state that would keep the first rate."""
    state = init_fn(params)
    if keeps_rate(state):
        raise ValueError(
            "optax.inject_hyperparams would keep the first rate for ever: pass the plain factory, its rate is set anew each step"
        )
    return state
