"""How curves are told apart: by color, by dashes and by marks, so that color is never all there is."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

MARKED = 40  # points up to which each is marked
SOME = 8  # marks of a longer curve beside others


class Stroke(NamedTuple):
    """What a curve looks like."""

    color: str
    dashes: str  # SVG's stroke-dasharray; "" for a line that is whole
    shape: str  # of its marks, as a path around 0, 0; "" for a circle
    hollow: bool = False

    def line(self, d: str) -> str:
        """A path of the curve."""
        dashes = f' stroke-dasharray="{self.dashes}"' if self.dashes else ""
        return f'<path d="{d}" stroke="{self.color}" fill="none" stroke-width="1.6"{dashes}/>'

    def mark(self, x: str, y: str) -> str:
        """A point of the curve."""
        look = f'fill="{"#fff" if self.hollow else self.color}" stroke="{self.color}"'
        if not self.shape:
            return f'<circle cx="{x}" cy="{y}" r="2.4" {look}/>'
        return f'<path class="mark" d="{self.shape}" transform="translate({x} {y})" {look}/>'


SQUARE, UP, DIAMOND, DOWN = "M-2.4-2.4H2.4V2.4H-2.4Z", "M0-3.2L3 2.2H-3Z", "M0-3.4L3.4 0L0 3.4L-3.4 0Z", "M0 3.2L3-2.2H-3Z"
STROKES = (
    Stroke("#2166ac", "", ""),
    Stroke("#e08214", "7 3", SQUARE),
    Stroke("#1b7837", "2 2.5", UP),
    Stroke("#762a83", "9 3 2 3", DIAMOND),
    Stroke("#d6604d", "4 2", DOWN),
    Stroke("#01959f", "12 4", "", True),
    Stroke("#8c6d31", "2 5", SQUARE, True),
    Stroke("#5a5a5a", "9 3 2 3 2 3", UP, True),
)


def drawn(points: Sequence[tuple[int | float, str | None]], stroke: Stroke, beside: int, which: int) -> str:
    """A curve, broken at gaps; a point without neighbours would be invisible without a mark.

    Args:
        points: x, and the place "x,y" in the figure or None for a gap.
        stroke: what it looks like.
        beside: how many other curves there are.
        which: its number among them, so that their marks do not fall together.
    """
    places = [None, *(place for _, place in points), None]
    path, pen, marks = [], "M", []
    every = 1 if len(points) <= MARKED else -(-len(points) // SOME) if beside else 0
    for i, (before, place, after) in enumerate(zip(places, places[1:], places[2:], strict=False)):
        if place is not None:
            path.append(pen + place)
            alone = before is None and after is None
            if alone or (every and (i + which * every // (beside + 1)) % every == 0):
                marks.append(stroke.mark(*place.split(",")))
        pen = "M" if place is None else "L"
    return stroke.line(" ".join(path)) + "".join(marks)


def legend(names: Sequence[str], band_name: str = "") -> str:
    """What each curve is called, with a piece of it; and the shaded area."""
    pieces = [f'<svg viewBox="0 0 30 8">{stroke.line("M0,4 L30,4")}{stroke.mark("15", "4")}</svg>' for stroke in STROKES]
    told = [f"<span><b>{piece}</b>{escape(name)}</span>" for piece, name in zip(pieces, names, strict=False)]
    shaded = f'<b style="background:{STROKES[0].color};opacity:.2"></b>'
    told += [f"<span>{shaded}{escape(band_name)}</span>"] if band_name else []
    return f'<div class="legend">{"".join(told)}</div>' if len(told) > 1 else ""
