"""Statistics over a cell's seeds for a study's table: mean, confidence interval, rank, rounds to a target."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

DRAWS = 10_000  # of a bootstrap


def interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Return the mean of the finite values and half the width of its confidence interval; None where too few are finite.

    mean +- t s / sqrt(n), t the (1 + confidence) / 2 quantile of Student's distribution with n - 1 degrees of freedom

    >>> mean, half = interval([1.0, 2.0, 3.0])
    >>> mean, round(half, 9)
    (2.0, 2.484137712)
    >>> interval([1.0, float("nan")]), interval([])
    ((1.0, None), (None, None))
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None, None
    if finite.size == 1:
        return float(finite[0]), None
    half = stdtrit(finite.size - 1, (1 + confidence) / 2) * finite.std(ddof=1) / math.sqrt(finite.size)
    return float(finite.mean()), float(half)


def with_interval(values: Sequence[float] | np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Return the mean and both ends of its confidence interval; None where too few values are finite."""
    mean, half = interval(values)
    return (mean, None, None) if mean is None or half is None else (mean, mean - half, mean + half)


def bootstrapped(differences: np.ndarray, confidence: float = 0.95) -> tuple[float | None, float | None, float | None]:
    """Return the mean of paired differences and both ends of its percentile bootstrap interval; None where too few are finite.

    The ends are the (1 +- confidence) / 2 quantiles of the mean over n seeds that are drawn with replacement from the n that there are,
    10,000 times, with a fixed key.

    >>> bootstrapped(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5, 0.5)
    >>> bootstrapped(np.array([0.5])), bootstrapped(np.array([]))
    ((0.5, None, None), (None, None, None))
    """
    if not differences.size or not np.isfinite(differences).all():
        return None, None, None
    mean = float(np.mean(differences))
    if differences.size == 1:
        return mean, None, None
    drawn = np.random.default_rng(0).integers(0, differences.size, (DRAWS, differences.size))
    low, high = np.quantile(differences[drawn].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return mean, float(low), float(high)


def ranks(means: Sequence[float | None], diverged: Sequence[int], lower_is_better: bool) -> list[int]:
    """Rank cells from 1, the best; equal means share the lower rank, and cells with diverged seeds come after all others.

    >>> ranks([0.5, 0.9, 0.9, None, 0.99], [0, 0, 0, 3, 1], lower_is_better=False)
    [3, 1, 1, 5, 4]
    """
    sign = 1 if lower_is_better else -1
    keys = [(bad > 0, math.inf if mean is None else sign * mean) for mean, bad in zip(means, diverged, strict=True)]
    return [1 + sum(other < key for other in keys) for key in keys]


def rounds_to(curves: np.ndarray, rounds: Sequence[int] | np.ndarray, target: float, lower_is_better: bool) -> np.ndarray | None:
    """Return the round, or the hour, of each curve's first point that reaches `target`; None if a curve never does.

    Args:
        curves: `[seeds, points]`.
        rounds: the round of each point, `[points]`; or its hour, `[seeds, points]`.

    Returns:
        `[seeds]`.

    >>> rounds_to(np.array([[0.1, 0.8, 0.7], [0.1, 0.2, 0.9]]), [10, 20, 30], 0.8, lower_is_better=False).tolist()
    [20, 30]
    """
    reached = curves <= target if lower_is_better else curves >= target
    if not reached.any(axis=1).all():
        return None
    return np.take_along_axis(np.broadcast_to(rounds, curves.shape), reached.argmax(axis=1)[:, None], axis=1)[:, 0]
