"""A measured curve as an SVG file, on a logarithmic horizontal axis, with no plotting library to install."""

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

from fedjax_lite.report.axis import ticks
from fedjax_lite.report.strokes import STROKES

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 60, 24, 66, 44
INK, GREY, GRID = "#1f2328", "#59636e", "#d8dee4"
CHARACTER = 6  # pixels of a digit at the size of tick labels

Series = list[tuple[float, float]]  # (x, y) points, in the order of x


def curve(path: Path, title: str, x_label: str, y_label: str, series: dict[str, Series], note: str = "") -> None:
    """Draw curves over sizes that span decades; the vertical axis is logarithmic where they do too, else it starts at 0.

    Args:
        series: name -> points. The horizontal axis is marked at the points themselves.
        note: a line below the title, such as what it was measured on.
    """
    xs, ys = sorted({x for points in series.values() for x, _ in points}), [y for points in series.values() for _, y in points]
    log = min(ys) > 0 and max(ys) / min(ys) > 10
    top, bottom = TOP if len(series) > 1 else TOP - 18, HEIGHT - BOTTOM  # a legend takes a line
    y_ticks = log_ticks(min(ys), max(ys)) if log else [tick for tick in ticks(0, max(ys)) if tick >= 0]
    across = _scale(math.log10, xs[0], xs[-1], LEFT + 14, WIDTH - RIGHT - 14)
    up = _scale(math.log10 if log else float, y_ticks[0], y_ticks[-1], bottom, top)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']  # GitHub's dark page would show through
    parts += [_text(LEFT, 18, title, "start", f'font-size="13" font-weight="bold" fill="{INK}"'), _text(LEFT, 35, note, "start")]
    for tick in y_ticks:
        parts.append(f'<path d="M{LEFT},{up(tick):.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 6, up(tick) + 4, short(tick), "end"))
    parts += [f'<path d="M{across(x):.1f},{bottom}v4" stroke="{GREY}"/>' for x in xs]
    parts += [_text(at, bottom + 16, label) for at, label in _apart((across(x), short(x)) for x in xs)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, style=f'fill="{INK}"'))
    middle = (top + bottom) / 2
    parts.append(_text(14, middle, y_label, style=f'fill="{INK}" transform="rotate(-90 14 {middle})"'))
    legend = LEFT
    for color, (name, points) in zip([stroke.color for stroke in STROKES], series.items(), strict=False):
        places = [f"{across(x):.1f},{up(y):.1f}" for x, y in points]
        parts.append(f'<polyline points="{" ".join(places)}" stroke="{color}" fill="none" stroke-width="1.8"/>')
        parts += ['<circle cx="{}" cy="{}" r="3" fill="{}"/>'.format(*place.split(","), color) for place in places]
        if len(series) > 1:
            parts.append(f'<path d="M{legend},50h14" stroke="{color}" stroke-width="3"/>' + _text(legend + 20, 54, name, "start"))
            legend += 40 + CHARACTER * len(name)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
    style = f'font-family="Helvetica, Arial, sans-serif" font-size="11" fill="{GREY}"'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f'{head} aria-label="{escape(title)}" {style}>', *parts, "</svg>\n"]))


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers that span an interval: 1, 2, 5, 10 ..., or powers of ten alone where that would be many.

    >>> log_ticks(3, 90)
    [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    """
    mantissas = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wanted = [float(f"{m}e{power}") for power in powers for m in mantissas]
    below, above = [tick for tick in wanted if tick <= low], [tick for tick in wanted if tick >= high]
    return [tick for tick in wanted if below[-1] <= tick <= above[0]]


def short(number: float) -> str:
    """A number as a tick label.

    >>> [short(n) for n in (0.05, 30.0, 1146, 10_000, 15e6)]
    ['0.05', '30', '1.1k', '10k', '15M']
    """
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.{max(2, len(str(int(number / unit))))}g}{letter}"
    return f"{number:.4g}"


def _apart(labels: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """The labels at places from left to right, without those that would run into the one before."""
    kept: list[tuple[float, str]] = []
    for at, label in labels:
        if not kept or at - kept[-1][0] > CHARACTER * (len(label) + len(kept[-1][1])) / 2 + 4:
            kept.append((at, label))
    return kept


def _scale(kind, low, high, start, end):
    """A map of [low, high] to [start, end], linear in `kind` of a value; a single value goes to the middle."""
    span = kind(high) - kind(low)
    return lambda value: start + (end - start) * ((kind(value) - kind(low)) / span if span else 0.5)


def _text(x: float, y: float, words: str, anchor: str = "middle", style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(words)}</text>'
