"""A contest of rules: its text, its page, its values."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_lite.arena import rules as built_in
from fedjax_lite.arena.attacks import ATTACKS
from fedjax_lite.arena.contender import Contender, memory, microseconds
from fedjax_lite.arena.field import CLIENTS
from fedjax_lite.arena.page import EACH_ALONE, page, paragraph, ranked, section
from fedjax_lite.arena.ranking import places, rank_rules
from fedjax_lite.arena.result import Arena, against, counted, printed, spread, with_interval
from fedjax_lite.arena.rule_page import all_scores, notes_on, sections_of
from fedjax_lite.arena.stored import Table, text_of

WORST = (
    "Worst case: the score under the attack that hurts most, in the mean over 10, 20 and 30 % attackers and both partitions. "
    "Mean: over all attacks too. A run whose model is lost scores 0. Breakdown: so many far-away messages are withstood."
)
ALL = "Mean score over the seeds and over 10, 20 and 30 % attackers."
SHOWN = 4  # places that a line names


def of_rules(table: Table, contender: Contender | None, notes: Sequence[str] = ()) -> Arena:
    """Rank the rules of a table, and a contender among them."""
    own = contender and contender.name
    met = [attack for attack in ATTACKS if contender is None or attack not in contender.skipped]
    rules = table.rules | ({contender.name: contender.scores} if contender else {}) if met else {}
    rows = rank_rules(rules, met, own) if rules else []
    at = places(rules, met, own) if own is not None and rules else []
    told = [*_summary(own, rows), *(_told(contender, at) if contender else []), *notes]
    lines = [*told[:1], *_printed(rows, own), *told[1:]] if rows else told
    parts = [
        section("Ranking", _ranking(rows, own) if rows else "", f"{WORST} {EACH_ALONE}"),
        *(sections_of(contender, met, at) if contender else []),
        section("All rules", all_scores(rules, met, [row["rule"] for row in rows]) if rows else "", ALL),
        section("Notes", notes_on(rules)),
    ]
    left_out = built_in.LEFT_OUT | ({} if contender is None else contender.skipped)
    text = page(f"Arena: {own or 'aggregators'}", paragraph(told), parts, table.rounds, table.seeds, table.made, left_out)
    values = text_of(table, contender and {contender.name: contender.scores._asdict()})
    return Arena("aggregator", own, tuple(rows), tuple(lines), text, values)


def _summary(own: str | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where a contender stands, or which built-in rules lead."""
    if not rows:
        return [f"{own}: not run"]
    if own is None:
        by_mean = min(rows, key=lambda row: row["mean_rank"])
        return [f"{len(rows)} rules: first in the worst case {rows[0]['rule']}, in the mean {by_mean['rule']}"]
    row = next(row for row in rows if row["rule"] == own)
    worst, mean = with_interval(row, "worst"), with_interval(row, "mean")
    in_both = f"{row['rank']} in the worst case ({worst}), {row['mean_rank']} in the mean ({mean})"
    others = counted(rows)
    return [f"{own}: rank of {len(rows)}: {in_both}"] + ([f"in the worst case {others} of the other rules"] if others else [])


def _told(contender: Contender, at: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in a few lines where a contender breaks and wins, what of the contract it breaks, and what it costs."""
    lines = [f"broken under {name or 'all attacks'}: {why}" for name, why in contender.scores.broken.items()]
    broken = sorted((row for row in at if row["breaks"] is not None), key=lambda row: (row["breaks"], sum(row["scores"])))
    breaks = [f"{row['attack']} from {100 * row['breaks'] // CLIENTS} % ({row['partition']})" for row in broken]
    wins = [f"{row['attack']} ({row['partition']})" for row in at if row.get("verdict") == "wins"]
    if at:
        lines.append(f"breaks under {_some(breaks)}" if breaks else "keeps more than half of its score under every attack")
    if wins:
        lines.append(f"better than every other rule under {_some(wins)}")
    if contender.contract is not None:
        lines.append(str(contender.contract).splitlines()[-1])
    if contender.name in contender.costs:
        own, mean = contender.costs[contender.name], contender.costs.get("mean")
        lines.append(f"{microseconds(own)} a call{f', {own.seconds / mean.seconds:.3g} times the mean' if mean else ''}; {memory(own)}")
    return lines + [f"not run under {name}: {why}" for name, why in contender.skipped.items()]


def _some(places: Sequence[str]) -> str:
    """Name the first places, and count the others."""
    return ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")


def _printed(rows: Sequence[dict[str, Any]], own: str | None) -> list[str]:
    """Write the ranking's best rows, and those around the contender."""
    head = ["rank", "rule", "worst case", "mean", "by mean", "no attack", "breakdown", *(["against it"] if own else [])]
    return printed(head, rows, own, _columns)


def _ranking(rows: Sequence[dict[str, Any]], own: str | None) -> str:
    """Write the table of the page."""
    head = ["rank", "rule", "worst case", "mean", "rank by mean", "no attack", "breakdown"]
    body = [[*_columns(row), *([against(row)] if own else [])] for row in rows]
    return ranked([*head, *(["against it, worst case"] if own else [])], body, own)


def _columns(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one rule's row, in print and on the page."""
    breakdown = "-" if row["breakdown"] is None else f"{row['breakdown']} of {CLIENTS}"
    means = spread(row, "worst"), spread(row, "mean")
    return [row["rank"], row["rule"], *means, row["mean_rank"], f"{row['clean']:.3f}", breakdown]
