"""The page of a contest: the parts that rules, attacks and uplinks share."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.arena.field import CLIENTS, FACED, SKEWS, facts
from fedjax_lite.report.document import document
from fedjax_lite.report.heat import heat_map
from fedjax_lite.report.table import html_table

STYLE = """
body { max-width: 1180px } .wide td { white-space: nowrap }
figure.heat { flex: 0 1 auto; width: 100% } .heat svg { font-variant-numeric: tabular-nums }
tr.own { font-weight: 600; background: #f0f5fb }
"""
SHARES = [f"{100 * f // CLIENTS} %" for f in FACED]
EACH_ALONE = "Intervals are of 95 %, by Student's t over the seeds, each for itself: of 20 true ties one may look like a win or a loss."


def page(title: str, parts: Sequence[str], rounds: int, seeds: int, made: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    """Write the page: its parts, then the field, what is left out, and what the table was made with."""
    field = facts(rounds) | {"seeds": seeds}
    told = {key: x for key, x in made.items() if not isinstance(x, Mapping)}
    told |= {f"{part} {key}": x for part, found in made.items() if isinstance(found, Mapping) for key, x in found.items()}
    ends = [
        section("The field", html_table(list(field.items()))),
        section("Left out", html_table(list(left_out.items()))) if left_out else "",
        section("The table of what is built in was made with", html_table(list(told.items()))) if told else "",
    ]
    return document(title, "".join([f"<h1>{escape(title)}</h1>", *parts, *ends]), STYLE)


def section(title: str, body: str, note: str = "") -> str:
    """Write a heading, a note and what follows."""
    return f"<h2>{escape(title)}</h2>" + (f"<small>{escape(note)}</small>" if note else "") + body


def paragraph(lines: Sequence[str]) -> str:
    """Write lines as one paragraph."""
    return "<p>" + "<br>".join(map(escape, lines)) + "</p>"


def ranked(head: Sequence[str], rows: Sequence[Sequence[Any]], own: str | None) -> str:
    """Write a table by rank, whose second column has the names; the contender's row stands out."""
    text = html_table(rows, head)
    marked = f"</td><td>{escape(own)}</td>" if own is not None else None
    lines = text.split("<tr>")
    return "<tr>".join(lines[:1]) + "".join(('<tr class="own">' if marked and marked in line else "<tr>") + line for line in lines[1:])


def maps(rows: Sequence[str], columns: Sequence[str], values: np.ndarray, lower_is_better: bool = False) -> str:
    """Draw a heat map for each partition of values `[rows, columns, skews]`, all on one scale; what is not finite is drawn apart."""
    finite = values[np.isfinite(values)]
    span = (float(finite.min()), float(finite.max())) if finite.size else None
    figures = [
        heat_map(
            skew, rows, columns, [[float(x) if np.isfinite(x) else None for x in row] for row in values[..., i]], (), span, lower_is_better
        )
        for i, skew in enumerate(SKEWS)
    ]
    return f'<div class="figures">{"".join(figures)}</div>'
