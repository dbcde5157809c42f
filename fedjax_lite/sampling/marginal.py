"""Probabilities that a client takes part, in NumPy and float64: the numbers behind `fl.sampling.inclusion`."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["MOST", "at_least_once", "capped", "first_of_race", "in_turn"]

Shares = Float[np.ndarray, " population"]
MOST = 10**7  # population times clients, for which a race is still computed
NODES = 2**22  # numbers held at once
PRECISE = 1e-11


def at_least_once(shares: Shares, draws: int) -> Shares:
    """Return 1 - (1 - q)^M."""
    return -np.expm1(draws * np.log1p(-np.minimum(shares, 1 - 1e-16)))


def capped(population: int, rate: float, slots: int) -> float:
    """Return a client's probability under Poisson sampling with so many slots: E[min(count, slots)] / population."""
    some = np.arange(min(slots, population))
    return float(stats.binom.sf(some, population, rate).sum() / population)


def in_turn(order: np.ndarray, there: Shares, clients: int) -> Shares:
    """Return the probability to be among the first `clients` of an order who are there, each independently."""
    found, ahead = np.zeros(len(order)), np.zeros(clients)
    ahead[0] = 1.0
    for k in order:
        found[k] = there[k] * ahead.sum()
        if not found[k] and not ahead.any():
            break
        ahead = _one_more(ahead, there[k])
    return found


def first_of_race(weights: Shares, there: Shares, clients: int) -> Shares:
    r"""Return the probability to be among the first `clients` arrivals at exponential times of rates `weights`, of those who are there.

    pi_k = a_k \int w_k e^(-w_k t) P(at most clients - 1 of the others have come by t) dt, each with probability a_j (1 - e^(-w_j t)): by
    log t, by the trapezoidal rule with steps halved until nothing changes. It is the draw of different clients one after another with
    probability proportional to weight (`weighted`); equal weights are a draw of different clients, each set equally likely.

    Raises:
        ValueError: for a population and clients whose product is above 10^7.
    """
    runs = (weights > 0) & (there > 0)
    if runs.sum() <= clients:
        return np.where(runs, there, 0.0)
    found, a, w = np.zeros(len(weights)), there[runs], weights[runs] / weights[runs].sum()
    if (a == 1).all() and (w == w[0]).all():
        found[runs] = clients / len(w)
    elif (a == a[0]).all() and (w == w[0]).all():
        others = np.arange(len(w))
        found[runs] = a * (stats.binom.pmf(others, len(w) - 1, a[0]) * np.minimum(1, clients / (1 + others))).sum()
    else:
        if len(w) * clients > MOST:
            raise ValueError(f"inclusion: {len(w)} clients, of whom {clients} are chosen by weight, are too many for the exact integral")
        found[runs] = _integral(w, a, clients)
    return found


def _integral(w: Shares, a: Shares, clients: int) -> Shares:
    """Integrate over the logarithm of time."""
    low, high, step = -34.0, math.log(60.0 / w.min()), 0.5
    points = np.arange(low, high, step)
    total = step * _sum(w, a, clients, points)
    for _ in range(8):
        more = points + step / 2
        points, step, before = np.concatenate([points, more]), step / 2, total
        total = total / 2 + step * _sum(w, a, clients, more)
        if np.abs(total - before).max() < PRECISE:
            break
    return a * total


def _sum(w: Shares, a: Shares, clients: int, points: np.ndarray) -> Shares:
    """Sum the integrand over points in the logarithm of time, as many at once as memory allows."""
    times = np.exp(points)
    times = times[_may_have(w, a, clients, times)]
    at_once = max(1, NODES // (len(w) * clients))
    return sum((_term(w, a, clients, times[i : i + at_once]) for i in range(0, len(times), at_once)), start=np.zeros(len(w)))


def _may_have(w: Shares, a: Shares, clients: int, times: np.ndarray) -> np.ndarray:
    """Mark times at which fewer than `clients` may have come: a bound on the lower tail, not below 1e-18."""
    mean = np.array([(a * -np.expm1(-w * t)).sum() for t in times])
    gap = np.maximum(mean - (clients - 1), 0)
    return gap**2 / (2 * np.maximum(mean, 1e-300)) < 42


def _term(w: Shares, a: Shares, clients: int, times: np.ndarray) -> Shares:
    """Return t w_k e^(-w_k t) P(at most clients - 1 of the others have come by t), summed over times t."""
    came = a[:, None] * -np.expm1(-w[:, None] * times)  # [clients of the population, times]
    ahead = np.zeros((len(w) + 1, len(times), clients))
    ahead[0, :, 0] = 1.0
    for k, p in enumerate(came):
        ahead[k + 1] = _one_more(ahead[k], p[:, None])
    found, behind = np.zeros(len(w)), ahead[0].copy()
    for k in range(len(w) - 1, -1, -1):
        few = (ahead[k] * np.cumsum(behind, axis=-1)[:, ::-1]).sum(axis=-1)
        found[k] = (times * w[k] * np.exp(-w[k] * times) * few).sum()
        behind = _one_more(behind, came[k][:, None])
    return found


def _one_more(counts: np.ndarray, p: Any) -> np.ndarray:
    """Return probabilities of counts below a limit, with one more who comes with probability p."""
    after = (1 - p) * counts
    after[..., 1:] += p * counts[..., :-1]
    return after
