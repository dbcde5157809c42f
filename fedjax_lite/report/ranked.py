"""A study's cells by rank, as a table that a reader can sort."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_lite.metrics import shown
from fedjax_lite.report.numbers import csv_link
from fedjax_lite.report.table import Cell, html_table
from fedjax_lite.report.target import OF_HOURS, OF_ROUNDS, to_target

__all__ = ["interval_of", "ranked"]


def ranked(metric: str, table: Sequence[Mapping[str, Any]]) -> str:
    """Write the cells by rank, and a link to their numbers; intervals are sorted by their means.

    Args:
        metric: what was measured.
        table: a row a cell, as `Study.table` makes it.
    """
    apart = {"low", "high", "seeds", "diverged", "rank", *OF_ROUNDS, *OF_HOURS}  # joined below, or left out
    names = [name for name in table[0] if name not in apart]
    waits = {what: said for what, said in (("rounds", "rounds"), ("hours", "virtual hours")) if f"{what}_low" in table[0]}
    head = ["rank", *names, "95 % interval", "diverged", *(f"{said} to the target (mean, 95 % interval)" for said in waits.values())]
    rows = [
        [
            row["rank"],
            *(Cell(shown(metric, row[name]), row[name]) if name == "mean" else row[name] for name in names),
            Cell(interval_of(metric, row), row["mean"]),
            row["diverged"],
            *(Cell(to_target(row, what), row[f"{what}_to_target"]) for what in waits),
        ]
        for row in sorted(table, key=lambda row: row["rank"])
    ]
    return html_table(rows, head, sortable=True) + csv_link(
        metric, {name: [row[name] for row in table] for name in table[0]}, "CSV of these cells"
    )


def interval_of(metric: str, row: Mapping[str, Any]) -> str:
    """Write the confidence interval of a row's mean; "-" where there is none.

    >>> interval_of("loss", {"low": 0.5, "high": 0.75})
    '0.5 to 0.75'
    """
    return "-" if row["low"] is None else f"{shown(metric, row['low'])} to {shown(metric, row['high'])}"
