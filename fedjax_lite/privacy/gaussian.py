"""Rounds of the Gaussian mechanism, each with a sample of the clients: their epsilon, and the noise for an epsilon. By dp-accounting."""

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from fedjax_lite.sampling.participation import Participation, slots_of

ACCOUNTANTS = ("rdp", "pld")
LEAST, MOST = 1e-2, 1e6  # of noise multipliers that are solved for
TOLERANCE = 1e-6  # of them, relative
INTERVAL = 1e-4  # of privacy losses, which are rounded up to multiples of it
MOST_LOSSES = 200_000  # of a round: where noise is small, and losses are large, the interval is so much longer
COARSE = 16  # times the interval, to come near a noise multiplier that is solved for


@cache
def epsilon_of_rounds(
    accountant: str, how: Participation, population: int, z: float, rounds: int, delta: float, coarse: bool = False
) -> float:
    """The epsilon of rounds with the noise multiplier z, of any kind but "cyclic"; a population of 0 has no limit of slots.

    By privacy losses it takes a second or two, whatever z; coarse a tenth of that.
    """
    dpa = package()
    if rounds == 0:
        return 0.0
    if accountant == "pld":
        return float(_losses(how, population, z, coarse).self_compose(rounds).get_epsilon_for_delta(delta))
    from dp_accounting import rdp

    relation, event = dpa.NeighboringRelation.ADD_OR_REMOVE_ONE, dpa.GaussianDpEvent(z)
    if how.kind == "poisson" and how.rate < 1:
        event = dpa.PoissonSampledDpEvent(float(how.rate), event)
    if how.kind == "fixed":  # replacing one client moves the sum by twice the clip norm
        relation = dpa.NeighboringRelation.REPLACE_ONE
        event = dpa.SampledWithoutReplacementDpEvent(population, how.clients, dpa.GaussianDpEvent(z / 2))
    ledger = rdp.RdpAccountant(neighboring_relation=relation)
    ledger.compose(event, rounds)
    return float(ledger.get_epsilon(delta))


@cache
def _losses(how: Participation, population: int, z: float, coarse: bool) -> Any:
    """The privacy losses of one round, rounded up; the same for any number of rounds."""
    from dp_accounting.pld import privacy_loss_distribution as losses

    rate = float(how.rate) if how.kind == "poisson" else 1.0
    slots = slots_of(how, population) if how.kind == "poisson" and population else population
    # Gaussian losses have the mean 1 / (2 z^2) and the deviation 1 / z: eight of these on either side of both means.
    interval = max(INTERVAL, (1 / z**2 + 16 / z) / MOST_LOSSES) * (COARSE if coarse else 1)
    if slots < population:
        return losses.from_truncated_subsampled_gaussian_mechanism(population, rate, slots, z, value_discretization_interval=interval)
    return losses.from_gaussian_mechanism(z, sampling_prob=rate, value_discretization_interval=interval)


def least_noise(epsilon: Callable[[float], float], target: float, start: float = 1.0) -> float:
    """The least noise multiplier under which no more than a target is given away, to a relative 1e-6.

    Args:
        epsilon: of a noise multiplier; falls with it.
        target: positive.
        start: a guess.

    Raises:
        ValueError: if no noise is enough.

    >>> round(least_noise(lambda z: 1 / z, target=4.0), 4)
    0.25
    """
    from scipy.optimize import brentq

    def excess(log_z: float) -> float:
        return math.log(min(max(epsilon(math.exp(log_z)), 1e-9), 1e9) / target)

    here = ahead = math.log(start)
    value = value_ahead = excess(here)
    while value * value_ahead > 0:  # epsilon falls at least as fast as 1 / z, mostly
        here, value, ahead = ahead, value_ahead, ahead + math.copysign(max(abs(value_ahead), TOLERANCE), value_ahead)
        if ahead > math.log(MOST):
            raise ValueError(f"target_epsilon={target} is out of reach of any noise: raise it, or give discrete noise more bits")
        if ahead < math.log(LEAST):
            return LEAST
        value_ahead = excess(ahead)
    found = brentq(excess, here, ahead, xtol=TOLERANCE / 4) if value != value_ahead else here
    return math.exp(found + TOLERANCE / 2)


def package() -> Any:
    """dp-accounting, or an error that says how to install it."""
    try:
        import dp_accounting
    except ImportError:
        raise ValueError('accounting needs the package dp-accounting: pip install "fedjax_lite[privacy]"') from None
    logging.getLogger("absl").addFilter(_worth_telling)
    return dp_accounting


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not that one of a hundred and fifty orders has no bound: another is the least."""
    return "Excluding this order" not in record.getMessage()
