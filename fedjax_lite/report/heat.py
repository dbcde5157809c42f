"""A heat map as SVG text: one value a cell, written in it, darker where it is better."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

SHADES = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
CELL, LETTER, MARGIN = (58, 30), 6.8, 8  # of a cell: width and height; of a letter: width; all in pixels
NOT_FINITE = "#f4d6d2"
ANGLE = 35  # of the columns' labels, in degrees, where they are wider than a column


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    notes: Sequence[Sequence[str]] = (),
    span: tuple[float, float] | None = None,
    lower_is_better: bool = False,
    say: Callable[[float | None], str] | None = None,
) -> str:
    """Values of two axes in one figure.

    Args:
        title: the caption.
        rows, columns: the axes' labels.
        values: `[rows][columns]`; None, drawn apart, where there is none.
        notes: what a pointer over the cell is told.
        span: the values of the two ends of the scale; by default those there are.
        lower_is_better: whether the darkest is the lowest.
        say: what is written in a cell.

    Returns:
        A `<figure>` element. The scale is logarithmic where the ends are more than two decades apart.

    >>> heat_map("x", ["a"], ["b"], [[0.5]]).count("<rect")
    1
    """
    there = [value for row in values for value in row if value is not None]
    low, high = span or (min(there, default=0.0), max(there, default=1.0))
    grid = _grid(rows, columns)
    parts = [_column(grid, j, label) for j, label in enumerate(columns)]
    for i, label in enumerate(rows):
        parts.append(_row(grid, i, label))
        for j, value in enumerate(values[i]):
            share = None if value is None else _share(value, low, high, lower_is_better)
            parts.append(_cell(grid, i, j, share, (say or written)(value), notes[i][j] if notes else None))
    across, down = f"{grid.across:.0f}", f"{grid.top + CELL[1] * len(rows) + MARGIN:.0f}"
    return (
        f'<figure class="heat" style="max-width:{across}px"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {across} {down}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


class _Grid(NamedTuple):
    """Where the cells lie, in pixels."""

    left: float
    top: float
    across: float  # the figure's width
    slanted: bool  # whether the columns' labels are


def _grid(rows: Sequence[str], columns: Sequence[str]) -> _Grid:
    """Leave the labels of rows and columns the room that they take."""
    width, _ = CELL
    slanted = any(len(label) * LETTER > width - 4 for label in columns)
    widest = max(map(len, columns), default=0) * LETTER
    lean, rise = (widest * math.cos(math.radians(ANGLE)), widest * math.sin(math.radians(ANGLE))) if slanted else (0.0, 0.0)
    left = MARGIN + max(map(len, rows), default=0) * LETTER + 6
    return _Grid(left, 20 + rise, left + width * len(columns) + max(MARGIN, lean - width / 2 + MARGIN), slanted)


def _column(grid: _Grid, j: int, label: str) -> str:
    """Write column j's label above it."""
    x, y = grid.left + (j + 0.5) * CELL[0], grid.top - 7
    anchor = f'text-anchor="start" transform="rotate(-{ANGLE} {x:.1f} {y:.1f})"' if grid.slanted else 'text-anchor="middle"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {anchor}>{escape(label)}</text>'


def _row(grid: _Grid, i: int, label: str) -> str:
    """Write row i's label beside it."""
    y = grid.top + i * CELL[1]
    return f'<text x="{grid.left - 6:.1f}" y="{y + CELL[1] / 2 + 4:.1f}" text-anchor="end">{escape(label)}</text>'


def _cell(grid: _Grid, i: int, j: int, share: float | None, text: str, note: str | None) -> str:
    """Draw the cell in row i and column j, shaded by its share, with its text and note."""
    width, height = CELL
    x, y = grid.left + j * width, grid.top + i * height
    fill, ink = (NOT_FINITE, "#222") if share is None else (shade(share), "#fff" if share > 0.55 else "#222")
    pointed = "" if note is None else f"<title>{escape(note)}</title>"
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 1}" height="{height - 1}" fill="{fill}">{pointed}</rect>'
        f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="middle" fill="{ink}" '
        f'pointer-events="none">{text}</text>'
    )


def _share(value: float, low: float, high: float, lower_is_better: bool) -> float:
    """Place a value between low and high on the scale, from 0, the worst, to 1."""
    if high <= low:
        return 0.5
    value = min(max(value, low), high)
    share = math.log(value / low) / math.log(high / low) if low > 0 and high / low > 100 else (value - low) / (high - low)
    return 1 - share if lower_is_better else share


def shade(share: float) -> str:
    """Mix the color of a share.

    >>> shade(0.0), shade(1.0)
    ('#f7fbff', '#08306b')
    """
    place = share * (len(SHADES) - 1)
    first = min(int(place), len(SHADES) - 2)
    start, end = ([int(SHADES[first + k][i : i + 2], 16) for i in (1, 3, 5)] for k in (0, 1))
    return "#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in zip(start, end, strict=True))


def written(value: float | None) -> str:
    """A value in few letters.

    >>> written(0.8765), written(1234.5), written(12.0), written(None)
    ('0.876', '1.2e+03', '12', '-')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 and value != int(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.1e}"
