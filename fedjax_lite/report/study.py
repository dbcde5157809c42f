"""The HTML page of a study: for each metric heat maps, ranked cells, and curves with bands over the seeds."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.metrics import HOURS, in_order, is_evaluation, lower_is_better
from fedjax_lite.report.axis import IN_HOURS
from fedjax_lite.report.cells import cell_curves, heat_maps, over_axes
from fedjax_lite.report.document import Section, fold, page
from fedjax_lite.report.ranked import ranked
from fedjax_lite.report.staleness import staleness_figure
from fedjax_lite.report.table import duration, pairs

SHADED = "mean over the seeds, shaded from the lowest to the highest"
FEW, SHORT = 4, 20  # metrics that are unfolded; cells of a ranking that is, the first's


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
    head = f"<h1>{escape(name)}</h1><p>{cells} cells ({escape(grid)}), {seeds} seed{'' if seeds == 1 else 's'} each</p>"
    results = {metric: results[metric] for metric in in_order(results)}
    alike = {metric: x.flat[0] for metric, x in results.items() if math.prod(x.shape) > 1 and (x == x.flat[0]).all()}
    moving = {metric: x for metric, x in results.items() if metric not in alike}
    sections: list[Section] = []
    for metric, values in moving.items():
        lower = lower_is_better(metric, (best or {}).get(metric))
        hours = results[HOURS] if metric in rounds and rounds.get(HOURS) == rounds[metric] and is_evaluation(metric) else None
        body = _of_metric(axes, metric, values, rounds.get(metric), tables[metric], lower, hours, not sections)
        sections.append(Section(metric.replace("_", " "), body, folded=len(sections) >= FEW))
    made = dict(made or {})
    ages = staleness_figure(made.pop("staleness", {}))
    sections += [
        Section("Staleness", f'<div class="figures">{ages}</div>' if ages else ""),
        Section("The same in all cells, seeds and rounds", pairs({name: float(x) for name, x in alike.items()}) if alike else ""),
        Section("Configuration", f"<pre>{escape(config)}</pre>" if config else "", folded=True),
        Section("Made with", pairs(_made_with(made)) if made else "", folded=True),
    ]
    return page(name, head, sections)


def _of_metric(
    axes: Mapping[str, Sequence[str]],
    metric: str,
    values: np.ndarray,
    rounds: Sequence[int] | None,
    table: Sequence[Mapping[str, Any]],
    lower: bool,
    hours: np.ndarray | None,
    first: bool,
) -> str:
    """Write a metric's section: heat maps, ranked cells, curves over axes of numbers, over rounds, and over hours where they are known."""
    several = values.shape[len(axes)] > 1
    ends = values if rounds is None else values[..., -1]
    told = f"Mean over the seeds{'' if rounds is None else ' at the end'}" + (
        ", \N{PLUS-MINUS SIGN} their standard deviation" if several else ""
    )
    text = f"<small>{told}; a stronger color is better ({'lower' if lower else 'higher'} is better).</small>"
    text += f'<div class="figures">{"".join(heat_maps(axes, metric, table, lower, ends))}</div>'
    text += fold("All cells by rank", f'<div class="wide">{ranked(metric, table)}</div>', first and len(table) <= SHORT)
    drawn = {"each axis of numbers": over_axes(axes, metric, ends, lower)}
    drawn |= {} if rounds is None else {"rounds": cell_curves(axes, metric, values, rounds, lower)}
    drawn |= {} if hours is None else {"virtual hours": cell_curves(axes, metric, values, hours, lower, across=IN_HOURS)}
    for across, figures in drawn.items():
        text += fold(f"Over {across}: {SHADED}", f'<div class="figures">{"".join(figures)}</div>' if any(figures) else "")
    return text


def _made_with(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for each fact but the settings, which the page shows elsewhere.

    >>> _made_with({"seconds": 61.0, "data": {"train": {"clients": 2, "sha256": "ab"}}, "code": {"jax": "1"}, "config": {}})
    {'time': '1 min 1 s', 'data train': 'clients 2, sha256 ab', 'code jax': '1'}
    """
    rows: dict[str, Any] = {}
    for part, facts in made.items():
        if part == "seconds" and isinstance(facts, int | float):
            rows["time"] = duration(facts)
        elif isinstance(facts, dict):
            of = {} if part in ("config", "source", "expected") else facts
            rows |= {f"{part} {k}": ", ".join(f"{a} {b}" for a, b in x.items()) if isinstance(x, dict) else x for k, x in of.items()}
        else:
            rows[part] = facts
    return rows
