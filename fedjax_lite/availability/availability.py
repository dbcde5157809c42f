"""When a client can be reached: a function of its id and of time alone, which is counted in rounds or in virtual seconds."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

__all__ = ["Availability", "check_law"]


class Availability(NamedTuple):
    """A law of availability. Time is a scalar: the round under a sampler, the seconds since the start under a clock."""

    there: Callable[[Any, Any], Bool[Array, "..."]]  # ids, time -> whether each can be reached; pure
    share: Callable[[Any, Any], Float[Array, "..."]]  # ids, time -> the probability of it, before the law's draws
    # On the host: population -> (id, time) -> bool, for hundreds of thousands of questions a second. None: `there` is asked.
    on_host: Callable[[int], Callable[[int, float], bool]] | None = None
    check: Callable[[int], None] = lambda population: None  # refuses a population of which a client is never there


def check_law(name: str, argument: str, law: Any) -> None:
    """Refuse what is no law of availability.

    Raises:
        TypeError: naming the argument and the value.
    """
    if not isinstance(law, Availability):
        raise TypeError(f"{name}: {argument} must be a law of fl.availability, got {law!r}: call the function that makes one")
