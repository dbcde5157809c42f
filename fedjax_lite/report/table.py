"""Rows of cells as an HTML table."""

from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["html_table"]


def html_table(rows: Sequence[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Write rows of cells as an HTML table."""
    top = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>" if head else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _text(value: Any) -> str:
    """Write a cell: "-" for None, 4 digits of a float."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
