"""A comparison as one HTML page: tables, and the contenders' curves over each other."""

from collections.abc import Sequence
from html import escape

from fedjax_lite.comparison.comparing import Comparison
from fedjax_lite.comparison.groups import Contender
from fedjax_lite.comparison.lines import AGAINST, line_of
from fedjax_lite.comparison.printed import columns_of, setting_rows
from fedjax_lite.metrics import in_order, is_evaluation, lower_is_better, scale_of
from fedjax_lite.report.axis import ROUND
from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.document import document
from fedjax_lite.report.page import axis_writer
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.report.table import html_table

__all__ = ["comparison_page"]


def comparison_page(found: Comparison) -> str:
    """Write a comparison as one HTML page."""
    head, rows = columns_of(found)
    settings = setting_rows(found)
    title = f"{len(found.contenders)} by {found.metric.replace('_', ' ')}"
    others = [name for name in in_order(_metrics(found.contenders)) if is_evaluation(name) and name != found.metric]
    curves = [figure for across in AGAINST.values() for figure in _figures(found.contenders, found.metric, across)]
    parts = [
        f"<h1>Comparison of {escape(title)}</h1>",
        "".join(f"<p>{escape(note)}</p>" for note in found.notes),
        f'<h2>{escape(found.metric.replace("_", " "))}</h2><div class="wide">{html_table(rows, head)}</div>',
        f'<div class="figures">{"".join(curves)}</div>',
        "<small>Mean over the seeds, shaded from the lowest to the highest, where all runs of a contender were evaluated.</small>",
        f'<h2>Settings that differ</h2><div class="wide">{html_table(settings[1:], settings[0])}</div>' if settings else "",
        f'<h2>Other metrics</h2><div class="figures">{"".join(_over_rounds(found.contenders, others))}</div>' if others else "",
    ]
    return document(f"Comparison of {title}", "".join(parts))


def _metrics(contenders: Sequence[Contender]) -> list[str]:
    """Return the metrics that any contender has."""
    return list(dict.fromkeys(name for one in contenders for name in one.metrics()))


def _over_rounds(contenders: Sequence[Contender], metrics: Sequence[str]) -> list[str]:
    """Draw metrics over rounds."""
    return [figure for metric in metrics for figure in _figures(contenders, metric, ROUND)]


def _figures(contenders: Sequence[Contender], metric: str, across: str) -> list[str]:
    """Draw a metric of all contenders that have it across rounds, bytes or hours: as many as there are strokes in a figure."""
    drawn = {one.name: line for one in contenders if (line := line_of(one, metric, across)) is not None}
    figures, names, scale = [], list(drawn), scale_of(metric)
    for start in range(0, len(names), len(STROKES)):
        curves, bands = {}, []
        for name in names[start : start + len(STROKES)]:
            curve, low, high = drawn[name]
            xs = curve.rounds.tolist()
            curves[name] = [(x, y / scale if y == y else None) for x, y in zip(xs, curve.values.tolist(), strict=True)]
            bands.append([(x, a / scale, b / scale) for x, a, b in zip(xs, low.tolist(), high.tolist(), strict=True) if a == a < b])
        title = metric.replace("_", " ") + ("" if across == ROUND else f" over {across}")
        say, lower = axis_writer(metric), lower_is_better(metric)
        figures.append(line_chart(title, curves, may_be_log=lower, bands=bands, across=across, say=say))
    return figures
