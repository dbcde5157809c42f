"""Rounds of the Gaussian mechanism on sampled clients: their epsilon, and the noise for an epsilon, by dp-accounting."""

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from fedjax_lite.sampling.participation import Participation, slots_of

ACCOUNTANTS = ("rdp", "pld")
LEAST, MOST = 1e-2, 1e6  # range of the noise multipliers that are solved for
TOLERANCE = 1e-6  # relative, of a noise multiplier that is solved for
INTERVAL = 1e-4  # between grid points of privacy losses, which are rounded up to the grid
MOST_LOSSES = 200_000  # grid points of a round: for little noise, and so large losses, the interval grows
COARSE = 16  # factor on the interval for a first, rough solution


@cache
def epsilon_of_rounds(
    accountant: str, how: Participation, population: int, z: float, rounds: int, delta: float, coarse: bool = False
) -> float:
    """Return the epsilon of `rounds` with noise multiplier `z`, for each kind of participation but "cyclic".

    A population of 0 means no limit of slots. PLD takes a second or two for every z, with `coarse` a tenth of the time.
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
    """Return the privacy loss distribution of one round, rounded up; cached for every number of rounds."""
    from dp_accounting.pld import privacy_loss_distribution as losses

    rate = float(how.rate) if how.kind == "poisson" else 1.0
    slots = slots_of(how, population) if how.kind == "poisson" and population else population
    # Gaussian losses have means +-1 / (2 z^2) and deviation 1 / z: the grid reaches 8 deviations beyond both.
    interval = max(INTERVAL, (1 / z**2 + 16 / z) / MOST_LOSSES) * (COARSE if coarse else 1)
    if slots < population:
        return losses.from_truncated_subsampled_gaussian_mechanism(population, rate, slots, z, value_discretization_interval=interval)
    return losses.from_gaussian_mechanism(z, sampling_prob=rate, value_discretization_interval=interval)


def least_noise(epsilon: Callable[[float], float], target: float, start: float = 1.0) -> float:
    """Find the least noise multiplier under which `epsilon` is at most `target`, to a relative 1e-6.

    Args:
        epsilon: noise multiplier -> epsilon, falling.
        target: positive.
        start: a guess of the noise multiplier.

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
    log_z = brentq(excess, here, ahead, xtol=TOLERANCE / 4) if value != value_ahead else here
    return math.exp(log_z + TOLERANCE / 2)


def package() -> Any:
    """Import dp-accounting, or raise an error that says how to install the package."""
    try:
        import dp_accounting
    except ImportError:
        raise ValueError('accounting needs the package dp-accounting: pip install "fedjax_lite[privacy]"') from None
    logging.getLogger("absl").addFilter(_is_worth_logging)
    return dp_accounting


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Return False for warnings that a Renyi order has no bound: epsilon is the least over 150 orders."""
    return "Excluding this order" not in record.getMessage()
