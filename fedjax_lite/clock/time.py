"""The virtual time that has passed, added up without losing small parts."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Time", "later", "midnight"]

HOUR = 3600.0  # seconds


class Time(NamedTuple):
    """Seconds since the start, and what their last rounding left over: a month in float32 is known to a quarter of a second."""

    seconds: Float[Array, ""]
    rest: Float[Array, ""]


def midnight() -> Time:
    """Return the time at the start of a run."""
    return Time(jnp.zeros(()), jnp.zeros(()))


def later(time: Time, seconds: Any) -> Time:
    """Add seconds to a time (Kahan 1965), so that the error does not grow with the number of rounds.

    >>> time = Time(jnp.float32(2.0**24), jnp.float32(0))
    >>> for _ in range(4):
    ...     time = later(time, 0.5)
    >>> float(time.seconds) - 2.0**24
    2.0
    """
    part = seconds - time.rest
    total = time.seconds + part
    return Time(total, (total - time.seconds) - part)
