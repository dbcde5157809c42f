"""The HTML page of a study: for each metric heat maps, ranked cells, and curves with bands over the seeds."""

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.metrics import HOURS, in_order, is_evaluation, lower_is_better, scale_of, shown
from fedjax_lite.report.axis import IN_HOURS, ROUND
from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.document import document
from fedjax_lite.report.heat import heat_map, written
from fedjax_lite.report.page import _duration, _pairs, axis_writer
from fedjax_lite.report.staleness import staleness_section
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.report.table import html_table
from fedjax_lite.report.target import OF_HOURS, OF_ROUNDS, over_hours, to_target

MOST_FIGURES = 48  # figures of a metric's curves, at most
SHADED = "mean over the seeds, shaded from the lowest to the highest"
MORE_STYLE = """
figure.heat { flex: 0 1 auto } details { margin: 1em 0 } summary { cursor: pointer; color: #2166ac }
.heat svg { font-variant-numeric: tabular-nums }
"""


def study_report(
    name: str,
    axes: Mapping[str, Sequence[str]],
    results: Mapping[str, np.ndarray],
    rounds: Mapping[str, Sequence[int]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    config: str = "",
    best: Mapping[str, str] | None = None,
    made: Mapping[str, Any] | None = None,
) -> str:
    """Write a study as one HTML page. The two longest axes are rows and columns of heat maps, one for each combination of the others.

    Args:
        name: the page's heading.
        axes: name -> labels.
        results: metric -> `[*axes, seeds]` or, for a curve, `[*axes, seeds, rounds]`.
        rounds: curve -> the rounds of its points.
        tables: metric -> a row a cell, in the order of the axes.
        config: the text of the study's settings.
        best: metric -> "min" or "max", where its name does not tell.
        made: date, seconds, and facts about data, code and device.
    """
    seeds = next(iter(results.values())).shape[len(axes)]
    cells = math.prod(len(labels) for labels in axes.values())
    grid = " x ".join(f"{len(labels)} {axis}" for axis, labels in axes.items())
    parts = [f"<h1>{escape(name)}</h1>", f"<p>{cells} cells ({escape(grid)}), {seeds} seed{'' if seeds == 1 else 's'} each</p>"]
    results = {metric: results[metric] for metric in in_order(results)}
    alike = {metric: x.flat[0] for metric, x in results.items() if math.prod(x.shape) > 1 and (x == x.flat[0]).all()}
    for metric, values in results.items():
        if metric in alike:
            continue
        lower = lower_is_better(metric, (best or {}).get(metric))
        better = "lower is better" if lower else "higher is better"
        parts.append(f"<h2>{escape(metric.replace('_', ' '))}</h2>")
        parts.append(f"<small>Mean over the seeds{' at the end' if metric in rounds else ''}; darker is better ({better}).</small>")
        parts.append(f'<div class="figures">{"".join(_heat_maps(axes, metric, tables[metric], lower))}</div>')
        parts.append(f'<details><summary>All cells by rank</summary><div class="wide">{_ranked(metric, tables[metric])}</div></details>')
        ends = values[..., -1] if metric in rounds else values
        if shown := "".join(_over_axes(axes, metric, ends, lower)):
            parts.append(
                f'<details open="open"><summary>Over each axis of numbers: {SHADED}</summary><div class="figures">{shown}</div></details>'
            )
        if metric in rounds:
            shown = "".join(_curves(axes, metric, values, rounds[metric], lower))
            parts.append(f'<details open="open"><summary>Over rounds: {SHADED}</summary><div class="figures">{shown}</div></details>')
            if is_evaluation(metric) and rounds.get(HOURS) == rounds[metric]:
                shown = "".join(_curves(axes, metric, values, results[HOURS], lower, across=IN_HOURS))
                parts.append(
                    f'<details open="open"><summary>Over virtual hours: {SHADED}</summary><div class="figures">{shown}</div></details>'
                )
    made = dict(made or {})
    parts.append(staleness_section(made.pop("staleness", {})))
    constant = {metric: float(value) for metric, value in alike.items()}
    parts.append(f"<h2>The same in all cells, seeds and rounds</h2>{_pairs(constant)}" if constant else "")
    parts.append(f"<h2>Configuration</h2><pre>{escape(config)}</pre>" if config else "")
    parts.append(f"<h2>Made with</h2>{_pairs(_made_with(made))}" if made else "")
    return document(name, "".join(parts), MORE_STYLE)


def _layout(axes: Mapping[str, Sequence[str]]) -> tuple[list[int], list[int]]:
    """Return the indices of the two longest axes, rows and columns of a heat map, and the indices of the other axes."""
    longest = sorted(range(len(axes)), key=lambda i: -len(list(axes.values())[i]))
    return longest[:2], sorted(longest[2:])


def _facets(axes: Mapping[str, Sequence[str]], others: Sequence[int]) -> list[tuple[dict[int, int], str]]:
    """Return each combination of rows of the axes `others`: axis -> row, and a caption."""
    names, labels = list(axes), list(axes.values())
    combinations = itertools.product(*(range(len(labels[i])) for i in others))
    return [
        (dict(zip(others, places, strict=True)), ", ".join(f"{names[i]} {labels[i][k]}" for i, k in zip(others, places, strict=True)))
        for places in combinations
    ]


def _heat_maps(axes: Mapping[str, Sequence[str]], metric: str, table: Sequence[Mapping[str, Any]], lower: bool) -> list[str]:
    """Draw a heat map for each combination of the axes that are neither rows nor columns, all on one scale."""
    shape = [len(labels) for labels in axes.values()]
    (rows, columns), others = (*_layout(axes)[0], None, None)[:2], _layout(axes)[1]
    names, labels = [*axes, ""], [*axes.values(), ("",)]
    means = [row["mean"] for row in table if row["mean"] is not None]
    span = (min(means), max(means)) if means else None
    figures = []
    say = partial(shown, metric, form=written)
    for fixed, caption in _facets(axes, others):

        def cell(i, j, fixed=fixed):
            place = fixed | ({} if rows is None else {rows: i}) | ({} if columns is None else {columns: j})
            return table[int(np.ravel_multi_index([place[k] for k in range(len(shape))], shape)) if shape else 0]

        down, along = labels[-1 if rows is None else rows], labels[-1 if columns is None else columns]
        values = [[cell(i, j)["mean"] for j in range(len(along))] for i in range(len(down))]
        notes = [[_note(metric, cell(i, j)) for j in range(len(along))] for i in range(len(down))]
        title = caption or " by ".join(names[k] for k in (rows, columns) if k is not None) or "all"
        figures.append(heat_map(title, down, along, values, notes, span, lower, say))
    return figures


def _over_axes(axes: Mapping[str, Sequence[str]], metric: str, ends: np.ndarray, lower: bool = False) -> list[str]:
    """Draw last values `ends`, `[*axes, seeds]`, over each axis of at least three numbers, with the longest other axis as curves."""
    figures = []
    for i, (name, labels) in enumerate(axes.items()):
        with suppress(ValueError):
            numbers = [float(label) for label in labels]
            if len(numbers) >= 3 and np.isfinite(numbers).all():
                order = np.argsort(numbers)
                others = {other: axes[other] for other in axes if other != name}
                values = np.moveaxis(ends, i, -1)[..., order]
                figures += _curves(others, metric, values, [numbers[k] for k in order], lower, across=name)
    return figures


def _curves(
    axes: Mapping[str, Sequence[str]],
    metric: str,
    values: np.ndarray,
    points: Sequence[int | float] | np.ndarray,
    lower: bool,
    across: str = ROUND,
) -> list[str]:
    """Draw a figure for each combination of the shorter axes, with the longest axis as curves, all on one scale.

    The scale may be logarithmic if lower is better. `points` are `[points]`, or the hours of each run's points, like `values`.
    """
    of_each = isinstance(points, np.ndarray)
    if not axes:
        axes, values, points = {"": ("",)}, values[None], points[None] if isinstance(points, np.ndarray) else points
    values = values / scale_of(metric)
    longest = _layout(axes)[0][0]
    labels = list(axes.values())[longest]
    with np.errstate(invalid="ignore"):
        means = values.mean(axis=-2)
    finite = means[np.isfinite(means)]
    span = (float(finite.min()), float(finite.max())) if finite.size else ()
    figures = []
    for fixed, caption in _facets(axes, [i for i in range(len(axes)) if i != longest]):
        for start in range(0, len(labels), len(STROKES)):
            curves, bands = {}, []
            for k in range(start, min(start + len(STROKES), len(labels))):
                places = fixed | {longest: k}
                index = tuple(places[i] for i in range(len(axes)))
                of_seeds, xs = values[index].astype(np.float64), points  # [seeds, points]
                if isinstance(points, np.ndarray):
                    xs, of_seeds = over_hours(of_seeds, points[index])
                seen = [(float(x) if of_each else x, of_seeds[:, t]) for t, x in enumerate(xs)]
                curves[labels[k]] = [(x, float(ys.mean()) if np.isfinite(ys).all() else None) for x, ys in seen]
                bands.append([(x, float(ys.min()), float(ys.max())) for x, ys in seen if np.isfinite(ys).all()])
            title = caption or metric.replace("_", " ")
            figures.append(line_chart(title, curves, may_be_log=lower, bands=bands, span=span, across=across, say=axis_writer(metric)))
    left_out = len(figures) - MOST_FIGURES
    return figures[:MOST_FIGURES] + ([f"<p>and {left_out} more: their values are in study.json</p>"] if left_out > 0 else [])


def _ranked(metric: str, table: Sequence[Mapping[str, Any]]) -> str:
    """Write the table of cells by rank."""
    apart = {"low", "high", "seeds", "diverged", "rank", *OF_ROUNDS, *OF_HOURS}  # joined below, or left out
    names = [name for name in table[0] if name not in apart]
    head = [
        "rank",
        *names,
        "95 % interval",
        "diverged",
        *(["rounds to the target (mean, 95 % interval)"] if "rounds_low" in table[0] else []),
        *(["virtual hours to the target (mean, 95 % interval)"] if "hours_low" in table[0] else []),
    ]
    rows = [
        [
            row["rank"],
            *(shown(metric, row[name]) if name == "mean" else row[name] for name in names),
            _interval(metric, row),
            row["diverged"],
            *([to_target(row)] if "rounds_low" in row else []),
            *([to_target(row, "hours")] if "hours_low" in row else []),
        ]
        for row in sorted(table, key=lambda row: row["rank"])
    ]
    return html_table(rows, head)


def _made_with(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for each fact but the settings, which the page shows elsewhere.

    >>> _made_with({"seconds": 61.0, "data": {"train": {"clients": 2, "sha256": "ab"}}, "code": {"jax": "1"}, "config": {}})
    {'time': '1 min 1 s', 'data train': 'clients 2, sha256 ab', 'code jax': '1'}
    """
    rows: dict[str, Any] = {}
    for part, facts in made.items():
        if part == "seconds" and isinstance(facts, int | float):
            rows["time"] = _duration(facts)
        elif isinstance(facts, dict):
            of = {} if part in ("config", "source", "expected") else facts
            rows |= {f"{part} {k}": ", ".join(f"{a} {b}" for a, b in x.items()) if isinstance(x, dict) else x for k, x in of.items()}
        else:
            rows[part] = facts
    return rows


def _interval(metric: str, row: Mapping[str, Any]) -> str:
    """Write the confidence interval of a row's mean; "-" where there is none."""
    return "-" if row["low"] is None else f"{shown(metric, row['low'])} to {shown(metric, row['high'])}"


def _note(metric: str, row: Mapping[str, Any]) -> str:
    """Write a heat map's note at a cell: mean, interval, rank and number of diverged seeds."""
    mean = shown(metric, row["mean"]) + ("" if row["low"] is None else f" ({_interval(metric, row)})")
    return mean + f", rank {row['rank']}" + (f", {row['diverged']} diverged" if row["diverged"] else "")
