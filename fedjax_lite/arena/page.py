"""The page of a contest: the parts that rules, attacks and uplinks share."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.arena.field import CLIENTS, FACED, SKEWS, facts
from fedjax_lite.report.document import Section
from fedjax_lite.report.document import page as document
from fedjax_lite.report.heat import heat_map
from fedjax_lite.report.table import html_table

SHARES = [f"{100 * f // CLIENTS} %" for f in FACED]
EACH_ALONE = "Intervals are of 95 %, by Student's t over the seeds, each for itself: of 20 true ties one may look like a win or a loss."


def page(
    title: str, head: str, parts: Sequence[Section], rounds: int, seeds: int, made: Mapping[str, Any], left_out: Mapping[str, str]
) -> str:
    """Write the page: a head, its parts, then the field, what is left out, and what the table was made with."""
    field = facts(rounds) | {"seeds": seeds}
    told = {key: x for key, x in made.items() if not isinstance(x, Mapping)}
    told |= {f"{part} {key}": x for part, found in made.items() if isinstance(found, Mapping) for key, x in found.items()}
    ends = [
        section("The field", html_table(list(field.items()))),
        section("Left out", html_table(list(left_out.items())) if left_out else ""),
        section("The table of what is built in was made with", html_table(list(told.items())) if told else ""),
    ]
    return document(title, f"<h1>{escape(title)}</h1>{head}", [*parts, *ends])


def section(title: str, body: str, note: str = "") -> Section:
    """Make a part of the page: a heading, a note and what follows."""
    return Section(title, f"<small>{escape(note)}</small>{body}" if note and body else body)


def paragraph(lines: Sequence[str]) -> str:
    """Write lines as one paragraph."""
    return "<p>" + "<br>".join(map(escape, lines)) + "</p>"


def ranked(head: Sequence[str], rows: Sequence[Sequence[Any]], own: str | None) -> str:
    """Write a table by rank, whose second column has the names, and which can be sorted; the contender's row stands out."""
    place = next((i for i, row in enumerate(rows) if row[1] == own), None)
    return f'<div class="wide">{html_table(rows, head, sortable=True, own=place)}</div>'


def maps(rows: Sequence[str], columns: Sequence[str], values: np.ndarray, lower_is_better: bool = False) -> str:
    """Draw a heat map for each partition of values `[rows, columns, skews]`, all on one scale; what is not finite is drawn apart."""
    finite = values[np.isfinite(values)]
    span = (float(finite.min()), float(finite.max())) if finite.size else None
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    figures = [heat_map(skew, rows, columns, plain[..., i].tolist(), (), span, lower_is_better) for i, skew in enumerate(SKEWS)]
    return f'<div class="figures">{"".join(figures)}</div>'
