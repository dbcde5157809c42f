"""How a student is taught: steps, batches, an optimizer, and when to stop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Number
from fedjax_lite.refuse import positive, whole
from fedjax_lite.schedules import Clock, Scheduled, transformation_at

__all__ = ["Lessons", "lessons"]

ENOUGH = 64  # steps in which an optimizer that will ever move does, warm-up and accumulation included


class Lessons(NamedTuple):
    """How a student is taught; from `lessons`."""

    optimizer_at: Callable[[Clock], optax.GradientTransformationExtraArgs]
    steps: int
    batch_size: int
    temperature: Number
    held_out: int
    every: int
    patience: int


def lessons(
    optimizer: Any,
    steps: int,
    batch_size: int = 64,
    *,
    learning_rate: Any = None,
    temperature: Number = 1.0,
    held_out: int = 0,
    every: int = 100,
    patience: int = 1000,
) -> Lessons:
    """How a student is taught: steps on batches of public examples, with early stopping where some are held out.

    Args:
        optimizer: an optax transformation (`optax.adam(1e-3)`), or with `learning_rate` its factory (`optax.adam`). Its state starts anew
            each time, so a schedule in it counts the steps of one time.
        steps: how many at most, at least 1.
        batch_size: examples a step; each epoch goes through them in another order, without the few that fill no batch.
        learning_rate: number, tracer or `fl.on_step(schedule)`.
        temperature: T > 0 of the student's softmax, that of the soft labels.
        held_out: how many public examples, the last ones, no step sees. With any, the student is that of the lowest loss on them.
        every: after how many steps the loss on them is looked at.
        patience: after how many steps without a lower one teaching ends.

    Raises:
        ValueError: for numbers out of range, a schedule on another clock than the step, an optimizer that does not move: such a student
            never learns.

    >>> lessons(optax.adam(1e-3), steps=1000, held_out=200).patience
    1000
    """
    whole("lessons", "steps", steps, least=1)
    whole("lessons", "batch_size", batch_size, least=1)
    positive("lessons", "temperature", temperature)
    whole("lessons", "held_out", held_out)
    whole("lessons", "every", every, least=1)
    whole("lessons", "patience", patience, least=1)
    if isinstance(learning_rate, Scheduled) and learning_rate.clock != "step":
        raise ValueError(f"learning_rate: lessons begin anew each time, so only fl.on_step can schedule it, not {learning_rate.clock!r}")
    optimizer_at = transformation_at(optimizer, learning_rate)
    if not _moves(optimizer_at, steps):
        raise ValueError(f"lessons: the optimizer moves nothing in {min(steps, ENOUGH)} steps, so the student never learns: raise its rate")
    return Lessons(optimizer_at, steps, batch_size, temperature, held_out, every, patience)


def _moves(optimizer_at: Callable[[Clock], optax.GradientTransformationExtraArgs], steps: int) -> bool:
    """Whether an optimizer changes a number whose gradient is 1; one that is traced, or not for such a number, may."""
    x, one = jnp.ones(1), jnp.ones(())
    try:
        state = optimizer_at(Clock(0, 0)).init(x)
        for j in range(min(steps, ENOUGH)):
            change, state = optimizer_at(Clock(0, j)).update(x, state, x, value=one)
            if isinstance(change, jax.core.Tracer) or change[0] != 0:
                return True
    except Exception:  # what is wrong with it will be said of the student's own parameters
        return True
    return False
