"""Day and night: a client is there with a probability that goes up and down with its hour."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.availability.availability import Availability
from fedjax_lite.availability.steps import answered, step_of
from fedjax_lite.availability.words import BITS, seeds, words
from fedjax_lite.base import Number
from fedjax_lite.refuse import a_count, a_share, is_number, plain, positive

__all__ = ["day_night"]


def day_night(
    mean: Number = 0.5,
    swing: Number = 0.4,
    day: Number = 86400.0,
    step: Number = 3600.0,
    spread: Number = 1.0,
    seed: int = 0,
    activity: Sequence[Number] | Any = None,
) -> Availability:
    r"""Each client is there in a step with a probability that follows a sine over the day, its hour being its own.

    p_k(t) = q_k (mean + swing sin(2 pi (t / day + u_k))), u_k uniform in [0, spread). A client tosses one coin a step, for the p_k of the
    step's beginning, independently of the steps before: it stays for at least a step.

    Args:
        mean, swing: of p_k; mean - swing and mean + swing are in [0, 1].
        day: the length of a day, in the clock's units. Under a sampler, whose time is the round: day=24, step=1 is a round an hour.
        step: the time between two coins.
        spread: how far clients' hours lie apart, as a part of a day: 0 is one time zone, 1 the whole earth.
        seed: names hours and coins, each a function of it and of the client's id.
        activity: q_k, a factor in (0, 1] for each client; 1 by default.

    Raises:
        ValueError: for numbers out of range; when the law meets a population of another size than `activity` has.

    >>> import jax.numpy as jnp
    >>> law = day_night(day=24, step=1, spread=0)
    >>> [round(float(law.there(jnp.arange(1000), hour).mean()), 1) for hour in (0, 6, 18)]
    [0.5, 0.9, 0.1]

    Source: 0.5 + 0.4 sin(2 pi t / 24) is FLGo's law "SLN", whose q_k are lognormal over the largest.
    """
    seed = a_count("day_night", "seed", seed, least=0)
    mean, swing, spread = (
        float(a_share("day_night", name, value, "[0, 1]")) for name, value in (("mean", mean), ("swing", swing), ("spread", spread))
    )
    if not swing <= min(mean, 1 - mean) + 1e-12:
        raise ValueError(f"day_night: swing={swing} takes the probability out of [0, 1] around mean={mean}: lower it")
    for name, value in (("day", day), ("step", step)):
        positive("day_night", name, plain(value))
    factors = None if activity is None else np.asarray([_factor(each) for each in activity], np.float32)
    law = _Law(float(mean), float(swing), float(spread), float(day), float(step), seeds(seed, 0), seeds(seed, 1), factors)
    return Availability(
        partial(_there, law),
        lambda ids, time: _probability(law, jnp.asarray(ids, jnp.int32), step_of(time, law.step), jnp),
        lambda population: answered(law.step, partial(_tossed, law, np.arange(population))),
        partial(_check, factors),
    )


class _Law(NamedTuple):
    """The law's numbers."""

    mean: float
    swing: float
    spread: float
    day: float
    step: float
    hours: tuple[np.uint32, np.uint32]
    coins: tuple[np.uint32, np.uint32]
    activity: Float[np.ndarray, " population"] | None


def _probability(law: _Law, ids: Any, number: Any, library: Any) -> Any:
    """Return each client's probability to be there in a step, by JAX or by NumPy."""
    own = law.spread * words(law.hours, ids, np.zeros((1,) * max(np.ndim(ids), 1), np.int32)).reshape(np.shape(ids)) / 2**BITS
    hour = number * law.step % law.day / law.day
    found = law.mean + law.swing * library.sin(2 * math.pi * (hour + own))
    return found if law.activity is None else library.asarray(law.activity)[ids] * found


def _there(law: _Law, ids: Any, time: Any) -> Array:
    """Toss each client's coin of the step that a time is in."""
    ids, number = jnp.asarray(ids, jnp.int32), step_of(time, law.step)
    return words(law.coins, ids, number) < _probability(law, ids, number, jnp) * 2**BITS


def _tossed(law: _Law, ids: np.ndarray, number: int) -> np.ndarray:
    """Toss the coins of a step on the host."""
    return words(law.coins, ids, np.array([number])) < _probability(law, ids, number, np) * 2**BITS


def _factor(value: Any) -> float:
    """Return one client's factor; refuse one outside (0, 1]."""
    value = plain(value)
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"day_night: activity must hold a factor in (0, 1] for each client, got {value!r}")
    return float(value)


def _check(factors: np.ndarray | None, population: int) -> None:
    """Refuse a population of another size than there are factors."""
    if factors is not None and len(factors) != population:
        raise ValueError(f"day_night: activity has {len(factors)} factors for {population} clients: give one for each")
