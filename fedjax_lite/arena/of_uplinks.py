"""A contest of uplinks: score against bits, as text, page and values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_lite.arena import uplinks as built_in
from fedjax_lite.arena.page import EACH_ALONE, page, paragraph, ranked, section
from fedjax_lite.arena.ranking import rank_uplinks
from fedjax_lite.arena.result import Arena, against, printed, spread, with_interval
from fedjax_lite.arena.stored import Table, text_of
from fedjax_lite.arena.traffic import Traffic
from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.table import Cell


def of_uplinks(table: Table, name: str, contender: Traffic, notes: Sequence[str] = ()) -> Arena:
    """Rank a contender among the uplinks of a table by score, and against bits."""
    uplinks = table.uplinks | {name: contender}
    rows = rank_uplinks(uplinks, name)
    told = _told(rows, name, contender)
    head = ["rank", "uplink", "score", "bits a message", "of none's", "on the front", "against it"]
    body = [[*_columns(row), against(row)] for row in rows]
    lines = [told[0], *printed(head, rows, name, _columns), *told[1:], *notes]
    note = "On the front: no other uplink has as good a score for as few bits. Scores are means over both partitions, without attackers."
    parts = [
        section("Score against bits", f'<div class="figures">{_figure(rows, name)}</div>'),
        section("Ranking", ranked(head, body, name), f"{note} {EACH_ALONE}"),
    ]
    values = text_of(table, {name: contender._asdict()})
    text = page(f"Arena: {name}", paragraph([*told, *notes]), parts, table.rounds, table.seeds, table.made, built_in.LEFT_OUT)
    return Arena("uplink", name, tuple(rows), tuple(lines), text, values)


def _told(rows: Sequence[Mapping[str, Any]], name: str, contender: Traffic) -> list[str]:
    """Say where a contender stands, and by which uplinks it is beaten in score and bits."""
    row = next(row for row in rows if row["uplink"] == name)
    score, bits = with_interval(row, "score"), f"{row['bits']:,.6g} bits a message"
    share = f", {100 * row['share']:.3g} % of none's" if np.isfinite(row["share"]) else ""
    lines = [f"{name}: rank {row['rank']} of {len(rows)} by score ({score}), {bits}{share}"]
    if contender.broken:
        return [*lines, f"broken: {contender.broken}"]
    better = [each["uplink"] for each in rows if each["uplink"] != name and each["score"] >= row["score"] and each["bits"] <= row["bits"]]
    front = "on the front: no other has as good a score for as few bits"
    return [*lines, front if row["front"] else f"behind the front: as good for as few bits are {', '.join(better[:4])}"]


def _columns(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one uplink's row, in print and on the page."""
    known = np.isfinite(row["bits"])
    bits = Cell(f"{row['bits']:,.6g}", row["bits"]) if known else Cell("-", None)
    share = Cell(f"{row['share']:.2%}", row["share"]) if known and np.isfinite(row["share"]) else Cell("-", None)
    return [row["rank"], row["uplink"], spread(row, "score"), bits, share, "yes" if row["front"] else ""]


def _figure(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Draw the front as a curve, the contender and the other uplinks as points."""
    places = sorted((row["bits"] / 1000, row["score"], row["uplink"], row["front"]) for row in rows if np.isfinite(row["bits"]))
    own = [(bits, score) for bits, score, uplink, _ in places if uplink == name]
    front = [(bits, score) for bits, score, _, on in places if on]
    # A gap after each point keeps points apart, without a line between them.
    others = [point for bits, score, uplink, on in places if uplink != name and not on for point in ((bits, score), (bits, None))]
    return line_chart("score", {name: own, "front": front, "others": others}, across="kilobits of a message")
