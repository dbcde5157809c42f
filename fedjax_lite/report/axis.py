"""The axes of a line chart: where a value lies in pixels, and which values are written beside it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 250, 52, 24, 10, 36
ROUND, IN_HOURS = "round", "virtual hours"
LETTER, APART = 6.2, 10  # pixels of a letter of a label, and between two labels of the horizontal axis, at least


class Axis(NamedTuple):
    """One axis of a chart."""

    place: Callable[[int | float], float]  # a value -> pixels
    ticks: Sequence[int | float]  # the values that it names, rising
    log: bool
    span: tuple[int | float, int | float]  # the values at its ends


def horizontal(xs: Sequence[int | float], across: str, own: bool = False) -> Axis:
    """Lay out an axis of xs, what `across` says; where it names its `own` values, logarithmic over a decade and a half."""
    low, high = min(xs), max(xs)
    log = own and low > 0 and high / low > 30
    named: Sequence[int | float] = [tick for tick in ticks(low, high) if low <= tick <= high]
    if across == ROUND:
        named = [tick for tick in named if tick == int(tick)] or [low]
    elif own:
        named = steps(low, high) if log else sorted(set(xs))
    return Axis(_scale(low, high, LEFT, WIDTH - RIGHT, log), named, log, (low, high))


def rounded(low: int | float, high: int | float, may_be_log: bool = False) -> Axis:
    """Lay out a horizontal axis over an interval, with round ticks: logarithmic, where it may be, over a decade and a half.

    >>> rounded(3, 97).ticks, rounded(3, 97, may_be_log=True).ticks
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [5.0, 10.0, 20.0, 50.0])
    """
    log = may_be_log and low > 0 and high / low > 30
    named = steps(low, high) if log else ticks(low, high)
    first, last = (low, high) if log else (named[0], named[-1])
    return Axis(_scale(first, last, LEFT, WIDTH - RIGHT, log), named, log, (first, last))


def whole_numbers(most: int) -> Axis:
    """Lay out a horizontal axis on which each of the numbers 0 to `most` has a stretch around it.

    >>> whole_numbers(3).ticks, whole_numbers(3).span
    ([0, 1, 2, 3], (-0.5, 3.5))
    """
    named = [int(tick) for tick in ticks(0, most) if tick == int(tick) and tick <= most] if most else [0]
    return Axis(_scale(-0.5, most + 0.5, LEFT, WIDTH - RIGHT, False), named, False, (-0.5, most + 0.5))


def vertical(ys: Sequence[int | float], edges: Sequence[int | float], may_be_log: bool) -> Axis:
    """Lay out an axis of ys and edges: logarithmic, where it may be, over three decades."""
    positive = [y for y in ys if y > 0]
    log = may_be_log and min(ys) >= 0 and bool(positive) and max(positive) / min(positive) > 1000
    spanned = positive if log else [*ys, *edges]
    named = decades(min(spanned), max(spanned)) if log else ticks(min(spanned), max(spanned))
    place = _scale(named[0], named[-1], HEIGHT - BOTTOM, TOP, log)
    return Axis(lambda y: place(min(max(y, named[0]), named[-1])), named, log, (named[0], named[-1]))


def ticks(low: int | float, high: int | float, wanted: int = 5) -> list[float]:
    """Round numbers that span an interval.

    >>> ticks(0.03, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / wanted
    scale = 10.0 ** math.floor(math.log10(raw))
    step = min((m * scale for m in (1, 2, 5, 10) if m * scale >= raw * 0.999), default=10 * scale)
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def decades(low: int | float, high: int | float) -> list[float]:
    """Powers of ten that span an interval, at most about seven.

    >>> decades(0.002, 30)
    [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = -(-(last - first) // 6)
    return [10.0**power for power in range(first, last + step, step)]


def steps(low: int | float, high: int | float) -> list[float]:
    """Values 1, 2 and 5 times powers of ten inside an interval, of more than three decades the powers alone.

    >>> steps(0.001, 1), steps(0.3, 20)
    ([0.001, 0.01, 0.1, 1.0], [0.5, 1.0, 2.0, 5.0, 10.0, 20.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 2.9 else (1, 2, 5)
    found = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in found if low * (1 - 1e-6) <= value <= high * (1 + 1e-6)]


def spread_labels(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those of some labels, centred at rising places, that leave each other room.

    >>> spread_labels([(0.0, "1"), (10.0, "2"), (20.0, "3")])
    [(0.0, '1'), (20.0, '3')]
    """
    kept: list[tuple[float, str]] = []
    for place, label in labels:
        if not kept or place - kept[-1][0] >= (len(label) + len(kept[-1][1])) / 2 * LETTER + APART:
            kept.append((place, label))
    return kept


def _scale(low: int | float, high: int | float, start: int, end: int, log: bool) -> Callable[[int | float], float]:
    """Map [low, high] to [start, end], linearly or by logarithms; a single value goes to the middle."""
    of = math.log10 if log else float
    low, high = of(low), of(high)
    return lambda value: (start + end) / 2 if high == low else start + (of(value) - low) / (high - low) * (end - start)
