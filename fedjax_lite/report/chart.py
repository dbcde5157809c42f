"""A line chart as SVG text: enough for curves over rounds, with no plotting library to install."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from fedjax_lite.metrics import is_size, scale_of, shown
from fedjax_lite.report.axis import BOTTOM, HEIGHT, LEFT, RIGHT, ROUND, WIDTH, Axis, horizontal, spread_labels, vertical
from fedjax_lite.report.colors import AREA
from fedjax_lite.report.figure import figure, hovering
from fedjax_lite.report.numbers import joined
from fedjax_lite.report.strokes import STROKES, Stroke, drawn, legend

MOST = 400  # points of a curve that are drawn; a chart is not wider in pixels

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
    own: bool = False,
    metric: str = "",
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
        across: what x is.
        own: let the horizontal axis name the points' own values, or be logarithmic where they span more than a decade and a half.
        metric: what the values are of, divided by `scale_of(metric)`, which decides how they are written.

    Returns:
        A `<figure>` element with all points in a link, or "" if there is nothing to draw.
    """
    points = [(x, y) for series in curves.values() for x, y in series if y is not None]
    if not points:
        return ""
    edges = [y for each in (band, *bands) for _, *both in each for y in both]
    right, up = horizontal([x for x, _ in points], across, own), vertical([*(y for _, y in points), *span], edges, may_be_log)
    parts = [*_grid(up, lambda value: shown(metric, value * scale_of(metric))), *_names(right, across)]
    parts += [_area(right, up, each, stroke) for stroke, each in zip(STROKES, bands or [band], strict=False) if each]
    for i, (stroke, series) in reversed(list(enumerate(zip(STROKES, curves.values(), strict=False)))):  # the first on top
        places = [(x, None if y is None or (up.log and y <= 0) else _place(right, up, x, y)) for x, y in thinned(series)]
        parts.append(drawn(places, stroke, len(curves) - 1, i))
    shaded = {f"{name}: range": each for name, each in zip(curves, bands, strict=False) if each} or ({band_name: band} if band else {})
    return figure(
        title,
        parts,
        label=f"{title} by {across}",
        caption=" <small>(logarithmic)</small>" if up.log else "",
        legend=legend(list(curves), band_name if band else ""),
        numbers=joined(across, {**curves, **shaded}),
        drawing=hovering(right, up, len(curves), "bytes" if is_size(metric) else ""),
    )


def _place(right: Axis, up: Axis, x: int | float, y: int | float) -> str:
    """Find where a point lies in the figure."""
    return f"{right.place(x):.1f},{up.place(y):.1f}"


def _grid(up: Axis, say: Callable[[float], str]) -> list[str]:
    """Draw a line across at each tick, with its value beside it."""
    parts = []
    for tick in up.ticks:
        y = f"{up.place(tick):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{say(tick)}</text>')
    return parts


def _names(right: Axis, across: str, form: str = ".4g") -> list[str]:
    """Write below the axis those of its ticks that have room, in `form` unless rounds, and across, what they are."""
    labels = spread_labels([(right.place(x), format(x, ".10g" if across == ROUND else form)) for x in right.ticks])
    parts = [f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>' for x, label in labels]
    return [*parts, f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>']


def _area(right: Axis, up: Axis, band: Band, stroke: Stroke) -> str:
    """Shade a band in a stroke's color."""
    thin = band[:: -(-len(band) // MOST)]
    outline = [_place(right, up, x, high) for x, _, high in thin] + [_place(right, up, x, low) for x, low, _ in reversed(thin)]
    return f'<polygon points="{" ".join(outline)}" fill="{stroke.color}" opacity="{AREA}"/>'


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
