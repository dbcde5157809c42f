"""A line chart as SVG text: enough for curves over rounds, with no plotting library to install."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 240, 56, 14, 14, 34
COLORS = ("#2166ac", "#b2182b", "#1b7837", "#762a83")

Series = Sequence[tuple[float, float | None]]  # (x, y) points; a y of None is a gap


def line_chart(title: str, curves: dict[str, Series], band: Sequence[tuple[float, float, float]] = ()) -> str:
    """Curves over rounds in one figure.

    Args:
        title: the caption.
        curves: name -> points.
        band: (x, low, high) points, drawn as a shaded area behind the first curve.

    Returns:
        A `<figure>` element, or "" if there is nothing to draw.
    """
    points = [(x, y) for series in curves.values() for x, y in series if y is not None]
    if not points:
        return ""
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + [y for _, low, high in band for y in (low, high)]
    (x_low, x_high), y_ticks = (min(xs), max(xs)), ticks(min(ys), max(ys))
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def at(x, y):
        across = LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = []
    for tick in y_ticks:
        (x0, y0), x1 = at(x_low, tick).split(","), WIDTH - RIGHT
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{x1}" y1="{y0}" y2="{y0}"/><text x="{LEFT - 6}" y="{float(y0) + 4}" text-anchor="end">{tick:.4g}</text>')
    for tick in (t for t in ticks(x_low, x_high) if x_low <= t <= x_high and t == int(t)):
        x0 = at(tick, y_low).split(",")[0]
        parts.append(f'<text x="{x0}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.0f}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">round</text>')
    if band:
        outline = [at(x, high) for x, _, high in band] + [at(x, low) for x, low, _ in reversed(band)]
        parts.append(f'<polygon points="{" ".join(outline)}" fill="{COLORS[0]}" opacity="0.15"/>')
    for color, (name, series) in zip(COLORS, curves.items(), strict=False):
        path, pen = [], "M"
        for x, y in series:
            path.append("" if y is None else pen + at(x, y))
            pen = "M" if y is None else "L"
        marks = "".join(f'<circle cx="{p[0]}" cy="{p[1]}" r="2" fill="{color}"/>' for p in (at(x, y).split(",") for x, y in series if y is not None))
        parts.append(f'<path d="{" ".join(path)}" stroke="{color}" fill="none" stroke-width="1.6"/>{marks if len(series) <= 60 else ""}')
    legend = "".join(f'<span style="color:{c}">&#9644; {escape(n)}</span> ' for c, n in zip(COLORS, curves, strict=False)) if len(curves) > 1 or band else ""
    return (
        f'<figure><figcaption>{escape(title)} <small>{legend}{"shaded: 10 % to 90 % of clients" if band else ""}</small></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by round">{"".join(parts)}</svg></figure>'
    )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that span an interval.

    >>> ticks(0.03, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / wanted
    scale = 10.0 ** math.floor(math.log10(raw))
    step = min((m * scale for m in (1, 2, 5, 10) if m * scale >= raw * 0.999), default=10 * scale)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
