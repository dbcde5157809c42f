"""The text that the command line prints about a study."""

import math
from collections.abc import Mapping
from contextlib import suppress

from fedjax_lite.metrics import headline, of_each_model, shown
from fedjax_lite.report.table import in_columns
from fedjax_lite.report.target import to_target
from fedjax_lite.study.grid import text_of
from fedjax_lite.study.results import Study

MOST = 30  # cells that are printed at most


def target_of(written: str) -> tuple[str, float]:
    """Split "metric=value" into a metric and its target.

    >>> target_of("test_accuracy=0.85")
    ('test_accuracy', 0.85)
    """
    metric, _, value = written.partition("=")
    with suppress(ValueError):
        if math.isfinite(target := float(value)):
            return metric.strip(), target
    raise ValueError(f"--target {written}: write it as metric=value, such as test_accuracy=0.85")


def ranking(study: Study, targets: Mapping[str, float]) -> str:
    """Write a study's cells by rank in the first metric with a target, else in the headline metric, of each model that there is."""
    metric = next((name for name in targets if name in study.results), None)
    metrics = [metric] if metric else of_each_model(headline(study.results), study.results)
    cells, seeds, programs = math.prod(len(axis.rows) for axis in study.axes), len(study.seeds), study.programs
    size = f"{_many(cells, 'cell')}, {_many(seeds, 'seed')} each, {_many(programs, 'program')}"
    return "\n".join([size, *(line for metric in metrics for line in _ranked(study, metric, targets))])


def _ranked(study: Study, metric: str, targets: Mapping[str, float]) -> list[str]:
    """Write the lines of a table of cells by rank in one metric."""
    table = sorted(study.table(metric, targets.get(metric)), key=lambda row: row["rank"])
    names = [name for axis in study.axes for name in axis.names]
    to = [what for what in ("rounds", "hours") if f"{what}_low" in table[0]]
    lines = [["rank", *names, metric, "95 % interval", "diverged", *(f"{what} to {targets[metric]:g} (mean, 95 %)" for what in to)]]
    for row in table[:MOST]:
        mean, low, high = (shown(metric, row[name], ".4f") for name in ("mean", "low", "high"))
        spread = "-" if row["low"] is None else f"{low} to {high}"
        reached = [to_target(row, what) for what in to]
        lines.append([str(row["rank"]), *(text_of(row[name]) for name in names), mean, spread, str(row["diverged"] or ""), *reached])
    text = in_columns(lines)
    if len(table) > MOST:
        text.append(f"... and {len(table) - MOST} more in table.csv")
    return text


def _many(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural unless the number is 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
