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
from fedjax_lite.report.document import Section, fold, page
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.report.table import html_table

__all__ = ["comparison_page"]

FEW = 3  # notes that are not folded


def comparison_page(found: Comparison) -> str:
    """Write a comparison as one HTML page."""
    head, rows = columns_of(found)
    settings = setting_rows(found)
    title = f"{len(found.contenders)} by {found.metric.replace('_', ' ')}"
    others = [name for name in in_order(_metrics(found.contenders)) if is_evaluation(name) and name != found.metric]
    curves = [figure for across in AGAINST.values() for figure in _figures(found.contenders, found.metric, across)]
    beside = "".join(figure for metric in others for figure in _figures(found.contenders, metric, ROUND))
    drawn = f'<div class="wide">{html_table(rows, head, sortable=True)}</div><div class="figures">{"".join(curves)}</div>'
    shaded = "<small>Mean over the seeds, shaded from the lowest to the highest, where all runs of a contender were evaluated.</small>"
    sections = [
        Section(found.metric.replace("_", " "), drawn + shaded),
        Section("Settings that differ", f'<div class="wide">{html_table(settings[1:], settings[0])}</div>' if settings else ""),
        Section("Other metrics", f'<div class="figures">{beside}</div>' if others else ""),
    ]
    noted = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    notes = noted if len(found.notes) <= FEW else fold(f"{len(found.notes)} notes on what is not alike", noted, unfolded=False)
    return page(f"Comparison of {title}", f"<h1>Comparison of {escape(title)}</h1>{notes}", sections)


def _metrics(contenders: Sequence[Contender]) -> list[str]:
    """Return the metrics that any contender has."""
    return list(dict.fromkeys(name for one in contenders for name in one.metrics()))


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
        figures.append(line_chart(title, curves, may_be_log=lower_is_better(metric), bands=bands, across=across, metric=metric))
    return figures
