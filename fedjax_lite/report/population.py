"""A population as SVG text: a row a client with a cell a class, darker for more examples, and a bar of its size."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.report.colors import BAR, INK, shade
from fedjax_lite.report.heat import LETTER, MARGIN

__all__ = ["population_svg"]

ROW, COLUMN, LONGEST, TOP = (5, 14), (6, 20), 160, 18  # pixels: height of a row, width of a column (many, few), of the longest bar, above
FEW = 40  # rows, or columns, that have labels


def population_svg(
    counts: np.ndarray, sizes: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "examples by client and class"
) -> str:
    """Draw counts and sizes of clients.

    Args:
        counts: `[clients, classes]`, examples of each class; without classes there are bars alone.
        sizes: `[clients]`, examples of each client.
        rows, columns: the names of clients and classes.
        title: what the figure shows, for who can't see it.

    Returns:
        An `<svg>` element that stands alone too. A cell's shade goes with the square root of its count, from white for none.

    >>> population_svg(np.array([[2, 0], [1, 3]]), np.array([2, 4]), ["ann", "bob"], ["cat", "dog"]).count("<rect")
    5
    """
    few_rows, few_columns = len(rows) <= FEW, len(columns) <= FEW
    high, wide = ROW[few_rows], COLUMN[few_columns]
    left = MARGIN + (max(map(len, rows), default=0) * LETTER if few_rows else 0)
    longest = max(map(len, columns), default=0) * LETTER if few_columns else 0
    top = TOP + (longest if longest > wide - 4 else 0)  # labels that are wider than their columns stand upright
    bars, most, largest = left + wide * len(columns) + MARGIN, max(int(counts.max(initial=0)), 1), max(int(sizes.max(initial=0)), 1)
    parts = [_label(left + (j + 0.5) * wide, top - 6, word, top > TOP) for j, word in enumerate(columns) if few_columns]
    for i, row in enumerate(rows):
        y = top + i * high
        parts += [f'<text x="{left - 4:.1f}" y="{y + high - 3:.1f}" text-anchor="end">{escape(row)}</text>'] if few_rows else []
        for j in np.flatnonzero(counts[i]).tolist():
            fill = shade((int(counts[i, j]) / most) ** 0.5)
            parts.append(_rect((left + j * wide, y), (wide - 1, high - 1), fill, f"{row}: {int(counts[i, j])} of {columns[j]}"))
        if size := int(sizes[i]):
            parts.append(_rect((bars, y), (max(size / largest * LONGEST, 1), high - 1), BAR, f"{row}: {size} examples"))
    parts.append(f'<text x="{bars:.1f}" y="{top - 6:.1f}">up to {largest:,} examples</text>')
    across, down = f"{bars + LONGEST + MARGIN:.0f}", f"{top + high * len(rows) + MARGIN:.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" style="width:{across}px;max-width:100%" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="11" fill="{INK}">{"".join(parts)}</svg>'
    )


def _rect(place: tuple[Any, Any], size: tuple[Any, Any], fill: str, told: str) -> str:
    """Draw a rectangle that tells something under a pointer."""
    at = f'x="{place[0]:.1f}" y="{place[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}"'
    return f'<rect {at} fill="{fill}"><title>{escape(told)}</title></rect>'


def _label(x: float, y: float | int, word: str, upright: bool) -> str:
    """Write a column's label above it."""
    turned = f'text-anchor="start" transform="rotate(-90 {x + 4:.1f} {y:.1f})"' if upright else 'text-anchor="middle"'
    return f'<text x="{x + 4 * upright:.1f}" y="{y:.1f}" {turned}>{escape(word)}</text>'
