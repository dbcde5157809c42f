"""Rows of cells as an HTML table, or in print, and what stands in cells."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from fedjax_lite.metrics import shown

__all__ = ["Cell", "duration", "html_table", "in_columns", "pairs"]


class Cell(NamedTuple):
    """A text that is sorted by a number; None: it has none, and comes last."""

    text: str
    value: float | None


def html_table(rows: Sequence[Sequence[Any]], head: Sequence[str] = (), sortable: bool = False, own: int | None = None) -> str:
    """Write rows of cells as an HTML table, whose rows the page's script lets a reader sort where they are `sortable`; `own` stands out.

    >>> html_table([[0.123456, None], [Cell("1 MB", 1e6), "b"]])
    '<table><tr><td>0.1235</td><td>-</td></tr><tr><td data-value="1000000.0">1 MB</td><td>b</td></tr></table>'
    """
    top = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>" if head else ""
    looks = [' class="own" style="font-weight:600"' if i == own else "" for i in range(len(rows))]
    body = "".join(f"<tr{look}>{''.join(map(_written, row))}</tr>" for look, row in zip(looks, rows, strict=True))
    kind = ' class="sortable"' if sortable else ""
    return f"<table{kind}>{top}{body}</table>"


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of cells as lines of print, in columns as wide as their widest cell.

    >>> in_columns([["rule", "x"], ["mean", "1"], ["median", "2"]])
    ['rule    x', 'mean    1', 'median  2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def pairs(values: Mapping[str, Any]) -> str:
    """Write a table of names and values, floats as metrics of these names are shown."""
    return html_table(
        [[name.replace("_", " "), shown(name, value) if isinstance(value, float) else value] for name, value in values.items()]
    )


def duration(seconds: int | float) -> str:
    """Write seconds in hours, minutes and seconds.

    >>> duration(3.21), duration(192), duration(4000)
    ('3.2 s', '3 min 12 s', '1 h 6 min')
    """
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{seconds:.1f} s"


def _written(value: Any) -> str:
    """Write a cell: "-" for None, 4 digits of a float."""
    if isinstance(value, Cell):
        return f'<td data-value="{"-" if value.value is None else value.value}">{escape(value.text)}</td>'
    text = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"<td>{escape(text)}</td>"
