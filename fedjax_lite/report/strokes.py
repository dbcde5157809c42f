"""Colors, dashes and marks of curves, so that curves differ in more than their color."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from fedjax_lite.report.colors import AREA, CURVES, PAGE

MARKED = 40  # a curve of at most so many points has a mark at each point
SOME = 8  # marks of a longer curve, if the figure has other curves


class Stroke(NamedTuple):
    """The look of a curve."""

    color: str
    dashes: str  # SVG's stroke-dasharray; "" for a solid line
    shape: str  # the path of a mark around 0, 0; "" for a circle
    hollow: bool = False

    def line(self, d: str) -> str:
        """Return the SVG of the curve along the path `d`."""
        dashes = f' stroke-dasharray="{self.dashes}"' if self.dashes else ""
        return f'<path d="{d}" stroke="{self.color}" fill="none" stroke-width="1.6"{dashes}/>'

    def mark(self, x: str, y: str) -> str:
        """Return the SVG of the curve's mark at a point."""
        look = f'fill="{PAGE if self.hollow else self.color}" stroke="{self.color}"'
        if not self.shape:
            return f'<circle cx="{x}" cy="{y}" r="2.4" {look}/>'
        return f'<path class="mark" d="{self.shape}" transform="translate({x} {y})" {look}/>'


SQUARE, UP, DIAMOND, DOWN = "M-2.4-2.4H2.4V2.4H-2.4Z", "M0-3.2L3 2.2H-3Z", "M0-3.4L3.4 0L0 3.4L-3.4 0Z", "M0 3.2L3-2.2H-3Z"
LOOKS: tuple[tuple[str, str, bool], ...] = (
    ("", "", False),
    ("7 3", SQUARE, False),
    ("2 2.5", UP, False),
    ("9 3 2 3", DIAMOND, False),
    ("4 2", DOWN, False),
    ("12 4", "", True),
    ("2 5", SQUARE, True),
    ("9 3 2 3 2 3", UP, True),
)
STROKES = tuple(Stroke(color, *look) for color, look in zip(CURVES, LOOKS, strict=True))


def drawn(points: Sequence[tuple[int | float, str | None]], stroke: Stroke, beside: int, which: int) -> str:
    """Draw a curve, broken at gaps; mark a point without neighbours, which no line would show.

    Args:
        points: x, and the place "x,y" in the figure or None for a gap.
        stroke: the look of the curve.
        beside: the number of other curves in the figure.
        which: the curve's number in the figure, which shifts its marks away from the other curves' marks.
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


def legend(names: Sequence[str], band_name: str = "", strokes: Sequence[Stroke] = STROKES) -> str:
    """Return the legend: the name of each curve beside a piece of its stroke, and the name of the shaded area."""
    pieces = [f'<svg viewBox="0 0 30 8">{stroke.line("M0,4 L30,4")}{stroke.mark("15", "4")}</svg>' for stroke in strokes]
    entries = [f"<span><b>{piece}</b>{escape(name)}</span>" for piece, name in zip(pieces, names, strict=False)]
    shaded = f'<b><svg viewBox="0 0 30 8"><rect width="30" height="8" fill="{strokes[0].color}" opacity="{AREA}"/></svg></b>'
    entries += [f"<span>{shaded}{escape(band_name)}</span>"] if band_name else []
    return f'<div class="legend">{"".join(entries)}</div>' if len(entries) > 1 else ""
