"""The numbers behind a figure, as CSV in a link of the page, which needs no script and no server."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

__all__ = ["Columns", "csv_link", "joined", "written_out"]

Columns = Mapping[str, Sequence[Any]]  # name -> numbers, texts or None, one a row
SAFE = ",.:;-_+()"  # characters that stay as they are in an address


def csv_link(name: str, columns: Columns, text: str = "CSV") -> str:
    """Write a link that saves columns as a CSV file.

    Args:
        name: what the numbers are; the file is called by its letters and digits.
        columns: of one length; what is None or not finite is an empty cell, and a float has nine digits, all that a float32 has.
        text: the link's.

    >>> csv_link("a & b", {"round": [1, 2], "loss": [0.5, None]})
    '<a class="csv" download="a-b.csv" href="data:text/csv;charset=utf-8,round,loss%0A1,0.5%0A2,%0A">CSV</a>'
    """
    cells = [_cells(column) for column in columns.values()]
    rows = [quote(",".join(map(_quoted, columns)), SAFE), *map(",".join, zip(*cells, strict=True)), ""]
    file = re.sub(r"\W+", "-", name).strip("-") or "numbers"
    address = escape(f"data:text/csv;charset=utf-8,{'%0A'.join(rows)}")
    return f'<a class="csv" download="{escape(file)}.csv" href="{address}">{escape(text)}</a>'


def joined(across: str, series: Mapping[str, Sequence[tuple[Any, ...]]]) -> dict[str, list[Any]]:
    """Put series side by side, in the order of x: a row for each x of any, None where a series has none.

    Args:
        across: what x is.
        series: name -> points (x, y). A band's points (x, low, high) make two columns.

    >>> joined("round", {"a": [(1, 0.5), (2, 0.25)], "b": [(2, 0.75)]})
    {'round': [1, 2], 'a': [0.5, 0.25], 'b': [None, 0.75]}
    """
    xs = sorted({x for points in series.values() for x, *_ in points})
    columns: dict[str, list[Any]] = {across: xs}
    for name, points in series.items():
        at = {x: ys for x, *ys in points}
        ends = [name] if all(len(ys) == 1 for ys in at.values()) else [f"{name}, low", f"{name}, high"]
        for i, end in enumerate(ends):
            columns[end if end not in columns else f"{end} "] = [at[x][i] if x in at else None for x in xs]
    return columns


def written_out(value: Any) -> str:
    """Write a cell of a CSV file.

    >>> written_out(0.1 + 0.2), written_out(float("nan")), written_out(7), written_out("a,b")
    ('0.3', '', '7', '"a,b"')
    """
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else ""
    return "" if value is None else _quoted(value) if isinstance(value, str) else str(value)


def _cells(column: Sequence[Any]) -> list[str]:
    """Write a column's cells for an address; those of numbers need no encoding."""
    cells = [written_out(value) for value in column]
    return [quote(cell, SAFE) for cell in cells] if any(isinstance(value, str) for value in column) else cells


def _quoted(text: str) -> str:
    """Quote a text for CSV where it has to be; it stays in its line."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([re.sub(r"[\r\n]+", " ", text), ""])
    return out.getvalue()[:-1]
