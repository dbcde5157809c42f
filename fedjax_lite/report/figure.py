"""The frame of a figure: its caption, its legend, the drawing, notes, and a link to the numbers that it shows."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from fedjax_lite.report.axis import HEIGHT, WIDTH, Axis
from fedjax_lite.report.numbers import Columns, csv_link

__all__ = ["figure", "hovering"]


def figure(
    title: str,
    parts: Sequence[str],
    *,
    label: str,
    caption: str = "",
    legend: str = "",
    size: tuple[int | float, int | float] = (WIDTH, HEIGHT),
    numbers: Columns | None = None,
    notes: Sequence[str] = (),
    drawing: str = "",
    kind: str = "",
) -> str:
    """Frame a drawing.

    Args:
        title: the caption, and the name of the file of numbers.
        parts: the drawing, as SVG elements.
        label: what the drawing shows, for who cannot see it.
        caption: HTML behind the title.
        legend: HTML below it.
        size: width and height of the drawing.
        numbers: columns that a link below the caption saves.
        notes: sentences below the drawing.
        drawing: attributes of the drawing, such as from `hovering`.
        kind: the frame's class.
    """
    link = csv_link(title, numbers) if numbers else ""
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    svg = f'<svg viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" aria-label="{escape(label)}"{drawing}>{"".join(parts)}</svg>'
    frame = f'<figure class="{kind}">' if kind else "<figure>"
    return f"{frame}<figcaption>{escape(title)}{caption}</figcaption>{legend}{svg}{link}{below}</figure>"


def hovering(right: Axis, up: Axis, curves: int, unit: str = "") -> str:
    """Return the attributes by which the page's script finds a value's place and writes it.

    Args:
        right, up: the axes.
        curves: how many columns of the figure's numbers, after the first, are curves; the others are ends of bands.
        unit: "bytes" where values are.
    """

    def ends(axis: Axis) -> list[Any]:
        low, high = axis.span
        return [round(axis.place(low), 2), round(axis.place(high), 2), low, high, int(axis.log)]

    said = {"x": ends(right), "y": ends(up), "curves": curves} | ({"unit": unit} if unit else {})
    return f' tabindex="0" data-hover="{escape(json.dumps(said))}"'
