"""The figures of a study's metric: heat maps with the spread over the seeds, and curves with bands over the seeds."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from fedjax_lite.metrics import scale_of, shown
from fedjax_lite.report.axis import ROUND
from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.facets import combinations, facets, longest
from fedjax_lite.report.heat import heat_map, written
from fedjax_lite.report.ranked import interval_of
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.report.target import over_hours

__all__ = ["cell_curves", "heat_maps", "over_axes"]

MOST_FIGURES = 48  # figures of a metric's curves, at most


def heat_maps(
    axes: Mapping[str, Sequence[str]], metric: str, table: Sequence[Mapping[str, Any]], lower: bool, ends: np.ndarray
) -> list[str]:
    """Draw a heat map for each combination of the axes that are neither rows nor columns, all on one scale."""
    means = [row["mean"] for row in table if row["mean"] is not None]
    span = (min(means), max(means)) if means else None
    spread = [_deviation(each) for each in ends.reshape(-1, ends.shape[-1])]
    say = partial(shown, metric, form=written)
    figures = []
    for facet in facets(axes):
        values = [[table[k]["mean"] for k in row] for row in facet.cells]
        notes = [[_note(metric, table[k]) for k in row] for row in facet.cells]
        around = [[spread[k] for k in row] for row in facet.cells]
        title = facet.caption or " by ".join(filter(None, facet.names)) or "all"
        figures.append(heat_map(title, *facet.labels, values, notes, span, lower, say, around))
    return figures


def over_axes(axes: Mapping[str, Sequence[str]], metric: str, ends: np.ndarray, lower: bool = False) -> list[str]:
    """Draw last values `ends`, `[*axes, seeds]`, over each axis of at least three numbers, with the longest other axis as curves."""
    figures = []
    for i, (name, labels) in enumerate(axes.items()):
        with suppress(ValueError):
            numbers = [float(label) for label in labels]
            if len(numbers) >= 3 and np.isfinite(numbers).all():
                order = np.argsort(numbers)
                others = {other: axes[other] for other in axes if other != name}
                values = np.moveaxis(ends, i, -1)[..., order]
                figures += cell_curves(others, metric, values, [numbers[k] for k in order], lower, across=name, own=True)
    return figures


def cell_curves(
    axes: Mapping[str, Sequence[str]],
    metric: str,
    values: np.ndarray,
    points: Sequence[int | float] | np.ndarray,
    lower: bool,
    across: str = ROUND,
    own: bool = False,
) -> list[str]:
    """Draw a figure for each combination of the shorter axes, with the longest axis as curves, all on one scale.

    The scale may be logarithmic if lower is better; the horizontal axis names its `own` points.
    `points` are `[points]`, or the hours of each run's points, like `values`.
    """
    of_each = isinstance(points, np.ndarray)
    if not axes:
        axes, values, points = {"": ("",)}, values[None], points[None] if isinstance(points, np.ndarray) else points
    values = values / scale_of(metric)
    (of_curves,), others = longest(axes, 1)
    labels = list(axes.values())[of_curves]
    with np.errstate(invalid="ignore"):
        means = values.mean(axis=-2)
    finite = means[np.isfinite(means)]
    span = (float(finite.min()), float(finite.max())) if finite.size else ()
    figures = []
    for fixed, caption in combinations(axes, others):
        for start in range(0, len(labels), len(STROKES)):
            curves, bands = {}, []
            for k in range(start, min(start + len(STROKES), len(labels))):
                places = fixed | {of_curves: k}
                index = tuple(places[i] for i in range(len(axes)))
                of_seeds, xs = values[index].astype(np.float64), points  # [seeds, points]
                if isinstance(points, np.ndarray):
                    xs, of_seeds = over_hours(of_seeds, points[index])
                seen = [(float(x) if of_each else x, of_seeds[:, t]) for t, x in enumerate(xs)]
                curves[labels[k]] = [(x, float(ys.mean()) if np.isfinite(ys).all() else None) for x, ys in seen]
                bands.append([(x, float(ys.min()), float(ys.max())) for x, ys in seen if np.isfinite(ys).all()])
            title = caption or metric.replace("_", " ")
            figures.append(line_chart(title, curves, may_be_log=lower, bands=bands, span=span, across=across, own=own, metric=metric))
    left_out = len(figures) - MOST_FIGURES
    return figures[:MOST_FIGURES] + ([f"<p>and {left_out} more: their values are in study.json</p>"] if left_out > 0 else [])


def _deviation(values: np.ndarray) -> float | None:
    """Return the standard deviation of the seeds that are finite, None of fewer than two.

    >>> _deviation(np.array([1.0, 3.0, np.nan])), _deviation(np.array([1.0]))
    (1.4142135623730951, None)
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(finite.std(ddof=1)) if finite.size > 1 else None


def _note(metric: str, row: Mapping[str, Any]) -> str:
    """Write a heat map's note at a cell: mean, interval, rank and number of diverged seeds."""
    mean = shown(metric, row["mean"]) + ("" if row["low"] is None else f" ({interval_of(metric, row)})")
    return mean + f", rank {row['rank']}" + (f", {row['diverged']} diverged" if row["diverged"] else "")
