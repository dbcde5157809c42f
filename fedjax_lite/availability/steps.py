"""Laws that decide once a step: the step of a time, and a host's answers for a whole step at once."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

__all__ = ["answered", "step_of"]


def step_of(time: Any, step: float) -> Int[Array, ""]:
    """Return the number of the step that a time is in, which begins at number * step."""
    return jnp.floor(jnp.asarray(time) / step).astype(jnp.int32)


def answered(step: float, states: Callable[[int], np.ndarray]) -> Callable[[int, float], bool]:
    """Make the host's (id, time) -> bool from number of a step -> bool `[population]`, which is asked once a step."""
    at: int | None = None
    held = b""

    def there(id, time):
        nonlocal at, held
        now = math.floor(time / step)
        if now != at:
            at, held = now, states(now).tobytes()
        return held[id] == 1

    return there
