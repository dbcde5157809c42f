"""A line chart as SVG text: enough for curves over rounds, with no plotting library to install."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from fedjax_lite.report.strokes import STROKES, drawn, legend

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 250, 52, 24, 10, 36
MOST = 400  # points of a curve that are drawn; a chart is not wider in pixels
ROUND = "round"
LETTER, APART = 6.2, 10  # pixels of a letter of a label, and between two labels of the horizontal axis, at least

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
    say: Callable[[float], str] = "{:.4g}".format,
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
        across: what x is. If it is not rounds, the axis names the points' own values, or where they span more than a decade and a half is
            logarithmic.
        say: a value of the vertical axis in words.

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
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{say(tick)}</text>')
    named = whole if across == ROUND else steps(min(xs), max(xs)) if wide else sorted(set(xs))
    for x, label in _apart([(right(along(x)), f"{x:.10g}" if across == ROUND else f"{x:.4g}") for x in named]):
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
    for stroke, shaded in zip(STROKES, bands or [band], strict=False):
        thin = shaded[:: -(-len(shaded) // MOST) or 1]
        outline = [at(x, high) for x, _, high in thin] + [at(x, low) for x, low, _ in reversed(thin)]
        parts += [f'<polygon points="{" ".join(outline)}" fill="{stroke.color}" opacity="0.15"/>'] if thin else []
    for i, (stroke, series) in reversed(list(enumerate(zip(STROKES, curves.values(), strict=False)))):  # the first on top
        places = [(x, None if y is None or (log and y <= 0) else at(x, y)) for x, y in thinned(series)]
        parts.append(drawn(places, stroke, len(curves) - 1, i))
    told = legend(list(curves), band_name if band else "")
    note = " <small>(logarithmic)</small>" if log else ""
    label = f'role="img" aria-label="{escape(title)} by {escape(across)}"'
    return (
        f"<figure><figcaption>{escape(title)}{note}</figcaption>{told}"
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


def steps(low: int | float, high: int | float) -> list[float]:
    """Values 1, 2 and 5 times powers of ten inside an interval, of more than three decades the powers alone.

    >>> steps(0.001, 1), steps(0.3, 20)
    ([0.001, 0.01, 0.1, 1.0], [0.5, 1.0, 2.0, 5.0, 10.0, 20.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 2.9 else (1, 2, 5)
    found = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in found if low * (1 - 1e-6) <= value <= high * (1 + 1e-6)]


def _apart(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those of some labels, centred at rising places, that leave each other room.

    >>> _apart([(0.0, "1"), (10.0, "2"), (20.0, "3")])
    [(0.0, '1'), (20.0, '3')]
    """
    kept: list[tuple[float, str]] = []
    for place, label in labels:
        if not kept or place - kept[-1][0] >= (len(label) + len(kept[-1][1])) / 2 * LETTER + APART:
            kept.append((place, label))
    return kept


def _scale(low, high, start, end):
    """A linear map of [low, high] to [start, end]; a single value goes to the middle."""
    return lambda value: (start + end) / 2 if high == low else start + (value - low) / (high - low) * (end - start)
