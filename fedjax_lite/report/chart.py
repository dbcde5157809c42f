"""A line chart as SVG text: enough for curves over rounds, with no plotting library to install."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 250, 52, 24, 10, 36
COLORS = ("#2166ac", "#e08214", "#1b7837", "#762a83", "#d6604d", "#01959f", "#8c6d31", "#5a5a5a")
MOST = 400  # points of a curve that are drawn; a chart is not wider in pixels
ROUND = "round"
APART = 36  # pixels from one label of the horizontal axis to the next, at least
MARKED = 40  # points up to which each is marked

Series = Sequence[tuple[int | float, float | None]]  # (x, y) points; a y of None is a gap
Band = Sequence[tuple[int | float, float, float]]  # (x, low, high)


def line_chart(
    title: str,
    curves: Mapping[str, Series],
    band: Band = (),
    band_name: str = "",
    may_be_log: bool = False,
    bands: Sequence[Band] = (),
    span: Sequence[float] = (),
    across: str = ROUND,
) -> str:
    """Curves over rounds, or over another number, in one figure.

    Args:
        title: the caption, which names the vertical axis.
        curves: name -> points, in the order of x.
        band: drawn as a shaded area behind the first curve.
        band_name: its legend.
        may_be_log: use a logarithmic axis if the curves span more than three decades; zeros are gaps on it.
        bands: one behind each curve, in its color, instead of `band`.
        span: values that the axis must reach too, as where figures are to be compared.
        across: what x is. If it is not rounds, the axis names the points' own values, and is logarithmic where they span more than a decade
            and a half.

    Returns:
        A `<figure>` element, or "" if there is nothing to draw.
    """
    xs = [x for series in curves.values() for x, y in series if y is not None]
    ys = [y for series in curves.values() for _, y in series if y is not None]
    if not xs:
        return ""
    ys += span
    positive = [y for y in ys if y > 0]
    log = may_be_log and min(ys) >= 0 and bool(positive) and max(positive) / min(positive) > 1000
    ys = positive if log else ys + [y for each in (band, *bands) for _, *edges in each for y in edges]
    wide = across != ROUND and min(xs) > 0 and max(xs) / min(xs) > 30
    along = math.log10 if wide else float
    whole = [tick for tick in ticks(min(xs), max(xs)) if min(xs) <= tick <= max(xs) and tick == int(tick)] or [min(xs)]
    y_ticks = decades(min(ys), max(ys)) if log else ticks(min(ys), max(ys))
    right = _scale(along(min(xs)), along(max(xs)), LEFT, WIDTH - RIGHT)
    height = math.log10 if log else float
    up = _scale(height(y_ticks[0]), height(y_ticks[-1]), HEIGHT - BOTTOM, TOP)

    def at(x, y):
        return f"{right(along(x)):.1f},{up(height(min(max(y, y_ticks[0]), y_ticks[-1]))):.1f}"

    parts = []
    for tick in y_ticks:
        y = at(xs[0], tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for x, tick in _apart([(right(along(x)), x) for x in (whole if across == ROUND else sorted(set(xs)))]):
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.10g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
    for color, shaded in zip(COLORS, bands or [band], strict=False):
        thin = shaded[:: -(-len(shaded) // MOST) or 1]
        outline = [at(x, high) for x, _, high in thin] + [at(x, low) for x, low, _ in reversed(thin)]
        parts += [f'<polygon points="{" ".join(outline)}" fill="{color}" opacity="0.15"/>'] if thin else []
    for color, series in reversed(list(zip(COLORS, curves.values(), strict=False))):  # the first on top
        parts.append(_curve([(x, None if y is None or (log and y <= 0) else at(x, y)) for x, y in thinned(series)], color))
    legend = "".join(f'<span><b style="background:{c}"></b>{escape(n)}</span>' for c, n in zip(COLORS, curves, strict=False))
    legend += f'<span><b style="background:{COLORS[0]};opacity:.2"></b>{escape(band_name)}</span>' if band else ""
    legend = f'<div class="legend">{legend}</div>' if len(curves) > 1 or band else ""
    note = " <small>(logarithmic)</small>" if log else ""
    label = f'role="img" aria-label="{escape(title)} by {escape(across)}"'
    return (
        f"<figure><figcaption>{escape(title)}{note}</figcaption>{legend}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" {label}>{"".join(parts)}</svg></figure>'
    )


def ticks(low: int | float, high: int | float, wanted: int = 5) -> list[float]:
    """Round numbers that span an interval.

    >>> ticks(0.03, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / wanted
    scale = 10.0 ** math.floor(math.log10(raw))
    step = min((m * scale for m in (1, 2, 5, 10) if m * scale >= raw * 0.999), default=10 * scale)
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def decades(low: int | float, high: int | float) -> list[float]:
    """Powers of ten that span an interval, at most about seven.

    >>> decades(0.002, 30)
    [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = -(-(last - first) // 6)
    return [10.0**power for power in range(first, last + step, step)]


def thinned(series: Series) -> Series:
    """At most about `MOST` points that keep every peak: the lowest and the highest of each stretch, in order."""
    stretch = -(-2 * len(series) // MOST)
    if stretch < 3:
        return series
    kept: list[tuple[int | float, float | None]] = []
    for i in range(0, len(series), stretch):
        points = [(y, x) for x, y in series[i : i + stretch] if y is not None]
        kept += sorted({(x, y) for y, x in (min(points), max(points))}) if points else [(series[i][0], None)]
    return kept


def _apart(labels: Sequence[tuple[float, int | float]]) -> list[tuple[float, int | float]]:
    """Those of some labels, at rising places, that leave each other room.

    >>> _apart([(0.0, 1), (10.0, 2), (80.0, 4)])
    [(0.0, 1), (80.0, 4)]
    """
    kept: list[tuple[float, int | float]] = []
    for place, value in labels:
        if not kept or place - kept[-1][0] >= APART:
            kept.append((place, value))
    return kept


def _scale(low, high, start, end):
    """A linear map of [low, high] to [start, end]; a single value goes to the middle."""
    return lambda value: (start + end) / 2 if high == low else start + (value - low) / (high - low) * (end - start)


def _curve(points: Sequence[tuple[int | float, str | None]], color: str) -> str:
    """A path, broken at gaps; a point without neighbours would be invisible without a mark."""
    places = [None, *(place for _, place in points), None]
    path, pen = [], "M"
    marks = []
    for before, place, after in zip(places, places[1:], places[2:], strict=False):
        if place is not None:
            path.append(pen + place)
            if len(points) <= MARKED or (before is None and after is None):
                x, y = place.split(",")
                marks.append(f'<circle cx="{x}" cy="{y}" r="2.2" fill="{color}"/>')
        pen = "M" if place is None else "L"
    return f'<path d="{" ".join(path)}" stroke="{color}" fill="none" stroke-width="1.6"/>{"".join(marks)}'
