"""What a table says of a cell's seeds: mean, confidence interval, rank, rounds to a target."""

import math
from collections.abc import Sequence

import numpy as np


def t_quantile(probability: float, freedom: int) -> float:
    """The t for which a Student t variable of whole degrees of freedom is below it with this probability.

    P(|T| < t) is a finite sum in theta = atan(t / sqrt(freedom)): for odd freedom
    (2 / pi) (theta + sin theta (cos theta + 2/3 cos^3 theta + ...)), for even freedom sin theta (1 + 1/2 cos^2 theta + ...),
    up to the power freedom - 2. The quantile is found by bisection over theta.

    Args:
        probability: in (0, 1).
        freedom: degrees of freedom, at least 1.

    >>> round(t_quantile(0.975, 4), 6)
    2.776445

    Source: Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"t_quantile needs a probability in (0, 1) and freedom >= 1, got {probability} and {freedom}")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        below = 0.5 + _within(middle, freedom) / 2 < probability
        low, high = (middle, high) if below else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Mean and half the width of its confidence interval, of the finite values; None where there are too few.

    mean +- t_quantile((1 + confidence) / 2, n - 1) s / sqrt(n)

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
    half = t_quantile((1 + confidence) / 2, finite.size - 1) * finite.std(ddof=1) / math.sqrt(finite.size)
    return float(finite.mean()), float(half)


def ranks(means: Sequence[float | None], diverged: Sequence[int], lower_is_better: bool) -> list[int]:
    """1 for the best; equal cells share the lower number. Cells with diverged seeds come after all others.

    >>> ranks([0.5, 0.9, 0.9, None, 0.99], [0, 0, 0, 3, 1], lower_is_better=False)
    [3, 1, 1, 5, 4]
    """
    sign = 1 if lower_is_better else -1
    keys = [(bad > 0, math.inf if mean is None else sign * mean) for mean, bad in zip(means, diverged, strict=True)]
    return [1 + sum(other < key for other in keys) for key in keys]


def rounds_to(curves: np.ndarray, rounds: Sequence[int], target: float, lower_is_better: bool) -> float | None:
    """The first round at which a curve reaches the target, in the mean over seeds; None if some never does.

    Args:
        curves: `[seeds, points]`.
        rounds: the round of each point.

    >>> rounds_to(np.array([[0.1, 0.8, 0.7], [0.1, 0.2, 0.9]]), [10, 20, 30], 0.8, lower_is_better=False)
    25.0
    """
    reached = curves <= target if lower_is_better else curves >= target
    if not reached.any(axis=1).all():
        return None
    return float(np.asarray(rounds)[reached.argmax(axis=1)].mean())


def _within(theta: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan theta)."""
    odd = freedom % 2
    term, total = (math.cos(theta), 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
