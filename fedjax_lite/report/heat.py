"""A heat map as SVG text: one value a cell, written in it, darker where it is better."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

from fedjax_lite.report.colors import INKS, NOT_FINITE, shade, shade_ink
from fedjax_lite.report.figure import figure

CELL, LETTER, MARGIN = (58, 30), 6.8, 8  # of a cell: width and height; of a letter: width; all in pixels
SECOND = 12  # more pixels of a cell's height, for a second line
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
    spread: Sequence[Sequence[float | None]] | None = None,
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
        spread: of each value, behind a plus-minus sign on a second line; None: of this value there is none.

    Returns:
        A `<figure>` element. The scale is logarithmic where the ends are more than two decades apart.

    >>> heat_map("x", ["a"], ["b"], [[0.5]]).count("<rect")
    1
    """
    there = [value for row in values for value in row if value is not None]
    low, high = span or (min(there, default=0.0), max(there, default=1.0))
    say = say or written
    second = spread is not None and any(each is not None for row in spread for each in row)
    grid = _grid(rows, columns, CELL[1] + SECOND * second)
    parts = [_column(grid, j, label) for j, label in enumerate(columns)]
    for i, label in enumerate(rows):
        parts.append(_row(grid, i, label))
        for j, value in enumerate(values[i]):
            share = None if value is None else _share(value, low, high, lower_is_better)
            more = spread[i][j] if spread is not None and second else None
            lines = [say(value)] + ([f"\N{PLUS-MINUS SIGN}{say(more)}"] if more is not None else [])
            parts.append(_cell(grid, i, j, share, lines, notes[i][j] if notes else None))
    down = grid.top + grid.high * len(rows) + MARGIN
    cells = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    numbers: dict[str, list[Any]] = {
        "row": [rows[i] for i, _ in cells],
        "column": [columns[j] for _, j in cells],
        "value": [values[i][j] for i, j in cells],
    }
    numbers |= {"spread": [spread[i][j] for i, j in cells]} if spread is not None and second else {}
    width = f' style="max-width:{grid.across:.0f}px"'
    return figure(title, parts, label=title, size=(grid.across, down), numbers=numbers, drawing=width, kind="heat")


class _Grid(NamedTuple):
    """Where the cells lie, in pixels."""

    left: float
    top: float
    across: float  # the figure's width
    slanted: bool  # whether the columns' labels are
    high: int  # a row's height


def _grid(rows: Sequence[str], columns: Sequence[str], high: int) -> _Grid:
    """Leave the labels of rows and columns the room that they take."""
    width, _ = CELL
    slanted = any(len(label) * LETTER > width - 4 for label in columns)
    widest = max(map(len, columns), default=0) * LETTER
    lean, rise = (widest * math.cos(math.radians(ANGLE)), widest * math.sin(math.radians(ANGLE))) if slanted else (0.0, 0.0)
    left = MARGIN + max(map(len, rows), default=0) * LETTER + 6
    return _Grid(left, 20 + rise, left + width * len(columns) + max(MARGIN, lean - width / 2 + MARGIN), slanted, high)


def _column(grid: _Grid, j: int, label: str) -> str:
    """Write column j's label above it."""
    x, y = grid.left + (j + 0.5) * CELL[0], grid.top - 7
    anchor = f'text-anchor="start" transform="rotate(-{ANGLE} {x:.1f} {y:.1f})"' if grid.slanted else 'text-anchor="middle"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {anchor}>{escape(label)}</text>'


def _row(grid: _Grid, i: int, label: str) -> str:
    """Write row i's label beside it."""
    y = grid.top + (i + 0.5) * grid.high
    return f'<text x="{grid.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'


def _cell(grid: _Grid, i: int, j: int, share: float | None, lines: Sequence[str], note: str | None) -> str:
    """Draw the cell in row i and column j, shaded by its share, with its lines of text and its note."""
    x, y = grid.left + j * CELL[0], grid.top + i * grid.high
    fill, ink = (NOT_FINITE, INKS[0]) if share is None else (shade(share), shade_ink(share))
    pointed = "" if note is None else f"<title>{escape(note)}</title>"
    parts = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{CELL[0] - 1}" height="{grid.high - 1}" fill="{fill}">{pointed}</rect>']
    for k, text in enumerate(lines):
        place = y + grid.high / 2 + 4 + SECOND * (k - (len(lines) - 1) / 2)
        small = ' font-size="9.5"' if k else ""
        parts.append(
            f'<text x="{x + CELL[0] / 2:.1f}" y="{place:.1f}" text-anchor="middle" fill="{ink}"{small} pointer-events="none">{text}</text>'
        )
    return "".join(parts)


def _share(value: float, low: float, high: float, lower_is_better: bool) -> float:
    """Place a value between low and high on the scale, from 0, the worst, to 1."""
    if high <= low:
        return 0.5
    value = min(max(value, low), high)
    share = math.log(value / low) / math.log(high / low) if low > 0 and high / low > 100 else (value - low) / (high - low)
    return 1 - share if lower_is_better else share


def written(value: float | None) -> str:
    """A value in few letters.

    >>> written(0.8765), written(1234.5), written(12.0), written(None)
    ('0.876', '1.2e+03', '12', '-')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 and value != int(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.1e}"
