"""A heat map as SVG text: one value a cell, written in it, darker where it is better."""

import math
from collections.abc import Callable, Sequence
from html import escape

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
    log = low > 0 and high / low > 100
    width, height = CELL
    slanted = any(len(label) * LETTER > width - 4 for label in columns)
    widest = max(map(len, columns), default=0) * LETTER
    lean, rise = (widest * math.cos(math.radians(ANGLE)), widest * math.sin(math.radians(ANGLE))) if slanted else (0.0, 0.0)
    left, top = MARGIN + max(map(len, rows), default=0) * LETTER + 6, 20 + rise
    across = left + width * len(columns) + max(MARGIN, lean - width / 2 + MARGIN)
    parts = []
    for j, label in enumerate(columns):
        x = left + (j + 0.5) * width
        turned = f'text-anchor="start" transform="rotate(-{ANGLE} {x:.1f} {top - 7:.1f})"' if slanted else 'text-anchor="middle"'
        parts.append(f'<text x="{x:.1f}" y="{top - 7:.1f}" {turned}>{escape(label)}</text>')
    for i, label in enumerate(rows):
        y = top + i * height
        parts.append(f'<text x="{left - 6:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        for j, value in enumerate(values[i]):
            share = _share(value, low, high, log)
            share = 1 - share if lower_is_better else share
            fill = NOT_FINITE if value is None else _shade(share)
            ink = "#fff" if value is not None and share > 0.55 else "#222"
            said = f"<title>{escape(notes[i][j])}</title>" if notes else ""
            x = left + j * width
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 1}" height="{height - 1}" fill="{fill}">{said}</rect>')
            parts.append(
                f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="middle" fill="{ink}" '
                f'pointer-events="none">{(say or written)(value)}</text>'
            )
    size = f"{across:.0f} {top + height * len(rows) + MARGIN:.0f}"
    label = f'role="img" aria-label="{escape(title)}"'
    return (
        f'<figure class="heat" style="max-width:{across:.0f}px"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {size}" {label}>{"".join(parts)}</svg></figure>'
    )


def _share(value: float | None, low: float, high: float, log: bool) -> float:
    """Where on the scale a value lies, from 0 to 1."""
    if value is None or high <= low:
        return 0.5
    value = min(max(value, low), high)
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def _shade(share: float) -> str:
    """
    >>> _shade(0.0), _shade(1.0)
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
