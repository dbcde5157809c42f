"""Figures of values that clients have: sorted, counted in bins, and against a number that each client has."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.report.axis import LEFT, RIGHT, WIDTH, Axis, decades, rounded, ticks, vertical
from fedjax_lite.report.chart import MOST, _grid, _names, _place, thinned
from fedjax_lite.report.colors import AREA, ZERO
from fedjax_lite.report.figure import figure, hovering
from fedjax_lite.report.numbers import Columns, joined
from fedjax_lite.report.strokes import Stroke, drawn, legend

BINS = 20  # of a histogram, about
SHARE = "share of clients in %"


class Sample(NamedTuple):
    """The values of one model at some clients."""

    name: str  # of the model and of the clients; "" where the caption says all
    stroke: Stroke
    values: np.ndarray  # [clients], float64, NaN where a client has none


def sorted_curves(title: str, samples: Sequence[Sample], may_be_log: bool = False, zero: bool = False, notes: Sequence[str] = ()) -> str:
    """Draw the rising values of each sample over the share of its clients, as quantiles interpolate them.

    Args:
        title: the caption, which names the vertical axis.
        samples: a curve each.
        may_be_log: use a logarithmic axis if the values span more than three decades; zeros lie on its lower edge.
        zero: draw a line at zero, too, and leave outliers that would take most of the axis on its edge.
        notes: sentences below the figure.
    """
    curves = [np.sort(_there(sample.values)).tolist() for sample in samples]
    low, high = _reach(np.concatenate(curves)) if zero else (-np.inf, np.inf)
    up = vertical([min(max(y, low), high) for curve in curves for y in curve], [0.0] if zero else [], may_be_log)
    right = rounded(0, 100)
    level = f"{up.place(0.0):.1f}" if zero else ""
    parts = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level}" y2="{level}" stroke="{ZERO}"/>'] if zero else []
    shares = [thinned([(100 * k / (len(curve) - 1) if len(curve) > 1 else 50, y) for k, y in enumerate(curve)]) for curve in curves]
    for i, (sample, series) in _first_on_top(samples, shares):
        places = [(x, _place(right, up, x, y)) for x, y in series if y is not None]
        parts.append(drawn(places, sample.stroke, len(samples) - 1, i))
    numbers = joined(SHARE, {sample.name: series for sample, series in zip(samples, shares, strict=True)})
    hover = hovering(right, up, len(samples))
    return _figure(title, samples, (right, up), SHARE, parts, [*_at_the_edge(up, curves), *notes], numbers, hover)


def histogram(title: str, across: str, samples: Sequence[Sample], may_be_log: bool = False) -> str:
    """Draw the share of each sample's clients in every bin of values, as an outline.

    Args:
        title: the caption, which names the vertical axis.
        across: what the values are.
        samples: an outline each; the bins are the same for all.
        may_be_log: use a logarithmic axis if the values are positive and span more than three decades.
    """
    values = [_there(sample.values) for sample in samples]
    edges, log = _bins(np.concatenate(values), may_be_log)
    shares = [(100 * np.histogram(each, edges)[0] / len(each)).tolist() for each in values]
    right, up = rounded(edges[0], edges[-1], log), vertical([0, *(share for each in shares for share in each)], [], False)
    parts = []
    for _, (sample, heights) in _first_on_top(samples, shares):
        filled = [k for k, height in enumerate(heights) if height]
        corners = [(edges[k + end], heights[k]) for k in range(filled[0], filled[-1] + 1) for end in (0, 1)]
        path = [_place(right, up, x, y) for x, y in [(corners[0][0], 0), *corners, (corners[-1][0], 0)]]
        parts.append(sample.stroke.line(f"M{' L'.join(path)}"))
        parts += [filled_under(path, sample.stroke)] if len(samples) == 1 else []
        for k in filled:  # in the middle of the bin as drawn, whether or not its axis is logarithmic
            parts.append(
                sample.stroke.mark(f"{(right.place(edges[k]) + right.place(edges[k + 1])) / 2:.1f}", f"{up.place(heights[k]):.1f}")
            )
    numbers = {"from": edges[:-1], "to": edges[1:]} | {sample.name or title: each for sample, each in zip(samples, shares, strict=True)}
    return _figure(title, samples, (right, up), across + (" (logarithmic)" if right.log else ""), parts, numbers=numbers)


def points(title: str, across: str, samples: Sequence[Sample], sizes: np.ndarray, may_be_log: bool = False) -> str:
    """Draw a mark for each client at its size and its value, on a logarithmic axis where sizes span more than a decade and a half.

    Args:
        title: the caption, which names the vertical axis.
        across: what the sizes are.
        samples: marks of one look each, of at most `MOST` clients, taken evenly by size.
        sizes: whole numbers, not negative, `[clients]`, NaN where a client has none.
        may_be_log: use a logarithmic vertical axis, as `sorted_curves` does.

    Returns:
        A `<figure>` element, or "" if no client has both a size and a value.
    """
    known = np.isfinite(sizes) & np.any([np.isfinite(sample.values) for sample in samples], axis=0)
    seen = known & (sizes > 0) if np.any(sizes[known] > 0) else known
    if not seen.any():
        return ""
    right = rounded(float(sizes[seen].min()), float(sizes[seen].max()), may_be_log=True)
    if not right.log:  # zero has a place
        seen = known
        right = rounded(float(sizes[seen].min()), float(sizes[seen].max()))
        right = right._replace(ticks=[tick for tick in right.ticks if tick == int(tick)])
    pairs = [_paired(sizes[seen], sample.values[seen]) for sample in samples]
    shown = [_evenly(each) for each in pairs]
    up = vertical([y for each in shown for _, y in each], [], may_be_log)
    parts = []
    for _, (sample, each) in _first_on_top(samples, shown):
        marks = [sample.stroke.mark(f"{right.place(x):.1f}", f"{up.place(y):.1f}") for x, y in each]
        parts.append(f'<g opacity="0.7">{"".join(marks)}</g>')
    notes = _at_the_edge(up, [[y for _, y in each] for each in shown])
    if (count := max(map(len, pairs))) > MOST:
        notes.append(f"Of each model at most {MOST} of {count:,} clients are drawn, taken evenly by size.")
    if left_out := int(known.sum() - seen.sum()):
        notes.append(f"{counted(left_out)} without {across} {'is' if left_out == 1 else 'are'} not drawn.")
    most, numbers = max(map(len, shown)), dict[str, list[float | None]]()
    for sample, each in zip(samples, shown, strict=True):
        for name, k in ((f"{across}, {sample.name}", 0), (sample.name, 1)):
            numbers[name] = [*(pair[k] for pair in each), *[None] * (most - len(each))]
    return _figure(title, samples, (right, up), across + (" (logarithmic)" if right.log else ""), parts, notes, numbers)


def _figure(
    title: str,
    samples: Sequence[Sample],
    axes: tuple[Axis, Axis],
    across: str,
    parts: Sequence[str],
    notes: Sequence[str] = (),
    numbers: Columns | None = None,
    hover: str = "",
) -> str:
    """Frame the parts of a figure by axes, caption, legend and notes; the caption names a single sample that has a name."""
    right, up = axes
    say: Callable[[float], str] = "{:.4g}".format
    whole = f"{title}: {samples[0].name}" if len(samples) == 1 and samples[0].name else title
    return figure(
        whole,
        [*_grid(up, say), *_names(right, across, "g"), *parts],
        label=f"{whole} by {across}",
        caption=" <small>(logarithmic)</small>" if up.log else "",
        legend=legend([sample.name for sample in samples], strokes=[sample.stroke for sample in samples]),
        numbers=numbers,
        notes=notes,
        drawing=hover,
    )


def filled_under(path: Sequence[str], stroke: Stroke) -> str:
    """Shade what lies under an outline."""
    return f'<path d="M{" L".join(path)}Z" fill="{stroke.color}" opacity="{AREA}"/>'


def _bins(values: np.ndarray, may_be_log: bool) -> tuple[list[float], bool]:
    """Return the edges of about `BINS` bins that span the values, and whether they are even by logarithms."""
    low, high = float(values.min()), float(values.max())
    if may_be_log and low > 0 and high / low > 1000:
        ends = decades(low, high)
        return np.geomspace(ends[0], ends[-1], BINS + 1).tolist(), True
    return [float(edge) for edge in ticks(low, high, BINS)], False


def _there(values: np.ndarray) -> np.ndarray:
    """Return the values that are numbers."""
    return values[np.isfinite(values)]


def _paired(sizes: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    """Return (size, value) where both are numbers, by size and then by value."""
    return sorted((x, y) for x, y in zip(sizes.tolist(), values.tolist(), strict=True) if np.isfinite(x) and np.isfinite(y))


def _evenly(pairs: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Take `MOST` of more pairs, evenly, the first and the last among them."""
    return pairs if len(pairs) <= MOST else [pairs[k] for k in np.linspace(0, len(pairs) - 1, MOST).round().astype(int)]


def _first_on_top(samples: Sequence[Sample], of: Sequence[Any]) -> list[tuple[int, tuple[Sample, Any]]]:
    """Pair samples with their drawings, numbered, the last first, since later parts of a figure hide earlier ones."""
    return list(enumerate(zip(samples, of, strict=True)))[::-1]


def _reach(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis: values' outer hundredths reach beyond the other values by their range, at most."""
    low, high = np.quantile(values, [0.01, 0.99])
    room = high - low or np.inf  # where nearly all are alike, nothing tells how far is far
    return float(max(values.min(), low - room)), float(min(values.max(), high + room))


def _at_the_edge(up: Axis, curves: Sequence[Sequence[float]]) -> list[str]:
    """Tell of values that have no place on the axis."""
    if up.log:
        return ["Zeros lie on the lower edge."] if any(y <= 0 for curve in curves for y in curve) else []
    beyond = sum(not up.ticks[0] <= y <= up.ticks[-1] for curve in curves for y in curve)
    return [f"Values beyond the axis lie on its edge: {beyond}."] if beyond else []


def counted(number: int) -> str:
    """Count clients.

    >>> counted(1), counted(10_000)
    ('1 client', '10,000 clients')
    """
    return f"{number:,} client{'' if number == 1 else 's'}"
