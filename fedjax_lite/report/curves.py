"""The curves of a run over rounds and virtual hours, a figure a metric, and the spread over clients around them."""

from collections.abc import Sequence
from typing import Any

from fedjax_lite.metrics import (
    EVALUATIONS,
    HOURS,
    ON_PUBLIC,
    SPREAD,
    in_order,
    is_evaluation,
    lower_is_better,
    parted,
    scale_of,
)
from fedjax_lite.report.axis import IN_HOURS
from fedjax_lite.report.chart import Series, line_chart

__all__ = ["MARK", "marked", "run_curves", "series_of", "spreads"]

MARK = "\N{DAGGER}"  # at a metric that a private run's guarantee does not cover

Records = Sequence[dict[str, Any]]


def run_curves(records: Records, outside: Sequence[str]) -> tuple[list[str], list[str]]:
    """Draw a figure a metric: what was evaluated, with its curve in local training and the spread over clients; and all others.

    Args:
        records: the dicts in metrics.jsonl.
        outside: metrics that a guarantee does not cover.
    """
    names = in_order(dict.fromkeys(name for record in records for name, value in record.items() if isinstance(value, float)))
    evaluated = [name for name in names if is_evaluation(name)]
    beside = [name for name in names if name in ON_PUBLIC]
    first = [figure for name in evaluated for figure in _evaluated(records, outside, name, names)]
    drawn = {each for name in evaluated for each in (name, parted(name)[1])}
    if len(beside) > 1:
        curves = {marked(ON_PUBLIC[name], outside, name): series_of(records, name) for name in beside}
        first.append(line_chart("accuracy on public examples", curves))
        drawn |= set(beside)
    moving = [name for name in names if name not in drawn and not len({record.get(name) for record in records}) == 1 < len(records)]
    return first, [_of_rounds(records, outside, name) for name in moving]


def _evaluated(records: Records, outside: Sequence[str], full: str, names: Sequence[str]) -> list[str]:
    """Draw an evaluation's metric with the spread over clients and its curve in local training; and where there is a clock, over hours."""
    prefix, name = parted(full)
    plain, lower = name.replace("_", " "), lower_is_better(name)
    curves = {marked(EVALUATIONS[prefix], outside, full): series_of(records, full)}
    if name in names:
        curves[marked("local training", outside, name)] = series_of(records, name)
    spread = [(record["round"], spreads(record).get(full, {})) for record in records]
    quantiles = [(x, each.get("deciles") or each.get("values") or [None]) for x, each in spread]
    band = [(x, values[0] / scale_of(name), values[-1] / scale_of(name)) for x, values in quantiles if None not in values]
    shaded = "10 % to 90 % of clients" if any("deciles" in each for _, each in spread) else "lowest to highest client"
    figures = [line_chart(plain, curves, band, shaded, lower, metric=name)]
    if hours := {record["round"]: record[HOURS] for record in records if HOURS in record}:
        (label, series), *_ = curves.items()
        timed = {label: [(hours[round], y) for round, y in series]}
        figures.append(line_chart(f"{plain} over virtual hours", timed, may_be_log=lower, across=IN_HOURS, metric=name))
    return figures


def _of_rounds(records: Records, outside: Sequence[str], name: str) -> str:
    """Draw a metric that rounds report."""
    title, curve = marked(name.replace("_", " "), outside, name), name if scale_of(name) == 1 else name.replace("bits", "bytes")
    series = {curve: series_of(records, name)}
    return line_chart(title, series, may_be_log=lower_is_better(name), metric=name)


def spreads(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the spread over clients of each metric of an evaluation, by the metric's full name.

    >>> spreads({"test_loss": 0.5, "test_clients": {"loss": {"mean": 0.25}}})
    {'test_loss': {'mean': 0.25}}
    """
    by_prefix = {name.removesuffix(SPREAD): value for name, value in record.items() if isinstance(value, dict)}
    return {prefix + name: each for prefix, spread in by_prefix.items() for name, each in spread.items()}


def series_of(records: Records, name: str) -> Series:
    """Return a metric's points (round, value / `scale_of`), with None where a record holds None.

    >>> series_of([{"round": 1}, {"round": 2, "uplink_bits": 16.0}], "uplink_bits")
    [(2, 2.0)]
    """
    scale = scale_of(name)
    there = [(record["round"], record[name]) for record in records if name in record]
    return [(x, None if y is None else y / scale) for x, y in there]


def marked(text: str, outside: Sequence[str], name: str | None = None) -> str:
    """Add `MARK` to `text` if the metric `name`, by default `text`, is outside the guarantee.

    >>> marked("loss", ["loss"]) == f"loss {MARK}", marked("held-out examples", ["loss"], "test_loss")
    (True, 'held-out examples')
    """
    return f"{text} {MARK}" if (name or text) in outside else text
