"""A contest of rules: its text, its page, its values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.arena import attacks as built_in_attacks
from fedjax_lite.arena import rules as built_in
from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.field import CLIENTS, FACED, SKEWS
from fedjax_lite.arena.page import EACH_ALONE, SHARES, maps, page, paragraph, ranked, section
from fedjax_lite.arena.ranking import cells, places, rank_rules
from fedjax_lite.arena.result import Arena, aligned, counted, difference, few, with_interval
from fedjax_lite.arena.stored import Table, text_of
from fedjax_lite.checks.cost import Cost
from fedjax_lite.checks.report import Report
from fedjax_lite.report.table import html_table

WORST = (
    "Worst case: the score under the attack that hurts most, in the mean over 10, 20 and 30 % attackers and both partitions. "
    "Mean: over all attacks too. A run whose model is lost scores 0."
)


class Contender(NamedTuple):
    """A rule of one's own, and what was found of it."""

    name: str
    scores: Scores
    contract: Report | None = None
    costs: dict[str, Cost] = {}  # its own and some built-in rules', on this machine
    skipped: dict[str, str] = {}  # attack -> why it was not run


def of_rules(table: Table, contender: Contender | None, notes: Sequence[str] = ()) -> Arena:
    """Rank the rules of a table, and a contender among them."""
    own = contender and contender.name
    rules = table.rules | ({contender.name: contender.scores} if contender else {})
    attacks = [attack for attack in built_in_attacks.ATTACKS if contender is None or attack not in contender.skipped]
    if not attacks:  # too slow for any
        rules, attacks = {}, list(built_in_attacks.ATTACKS)
    rows = rank_rules(rules, attacks, own if rules else None)
    at = places(rules, attacks, own) if own is not None and rules else []
    told = [*notes, *(_told(contender, rows, at) if contender else [])]
    lines = [*(_summary(own, rows) if rows else []), *_printed(rows, own), *told]
    head = [
        "rank",
        "rule",
        "worst case",
        "mean",
        "rank by mean",
        "no attack",
        "far-away messages withstood",
        *(["against it, worst case"] if own else []),
    ]
    body = [[*_columns(row), *([difference(row)] if own else [])] for row in rows]
    parts = [
        paragraph([*(_summary(own, rows) if rows else []), *told]),
        section("Ranking", f'<div class="wide">{ranked(head, body, own)}</div>', f"{WORST} {EACH_ALONE}"),
        *(_pages_of(contender, rules, attacks, at) if contender else []),
        section(
            "All rules",
            _all(rules, attacks, [row["rule"] for row in rows]),
            "Mean score over the seeds and over 10, 20 and 30 % attackers.",
        )
        if rows
        else "",
        section("Notes", html_table(_notes(rules))),
    ]
    left_out = built_in.LEFT_OUT | ({} if contender is None else contender.skipped)
    values = text_of(table, contender and {contender.name: contender.scores._asdict()})
    title = f"Arena: {own or 'aggregators'}"
    return Arena("aggregator", own, tuple(rows), tuple(lines), page(title, parts, table.rounds, table.seeds, table.made, left_out), values)


def _summary(own: str | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where a contender stands, or which built-in rules lead."""
    by_mean = min(rows, key=lambda row: row["mean_rank"])
    if own is None:
        return [f"{len(rows)} rules: first in the worst case {rows[0]['rule']}, in the mean {by_mean['rule']}"]
    row = next(row for row in rows if row["rule"] == own)
    against = counted(rows)
    return [
        f"{own}: rank {row['rank']} of {len(rows)} in the worst case ({with_interval(row, 'worst')}), "
        f"{row['mean_rank']} in the mean ({with_interval(row, 'mean')})" + (f"; in the worst case {against} rules" if against else "")
    ]


def _printed(rows: Sequence[dict[str, Any]], own: str | None) -> list[str]:
    """Write the ranking's best rows, and those around the contender."""
    head = ["rank", "rule", "worst case", "mean", "by mean", "no attack", "breakdown", *(["against it"] if own else [])]
    body = []
    for row in few(rows, own, "rule"):
        short = row and difference(row).split(" (")[0]
        body.append(["..."] + [""] * (len(head) - 1) if row is None else [*map(str, _columns(row)), *([short or "-"] if own else [])])
    return aligned(head, body) if body else []


def _columns(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one rule's row, in print and on the page."""
    row = dict(row)
    breakdown = "-" if row["breakdown"] is None else f"{row['breakdown']} of {CLIENTS}"
    means = with_interval(row, "worst"), with_interval(row, "mean")
    return [row["rank"], row["rule"], *means, row["mean_rank"], f"{row['clean']:.3f}", breakdown]


def _told(contender: Contender, rows: Sequence[Mapping[str, Any]], at: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in a few lines where a contender breaks and wins, what of the contract it breaks, and what it costs."""
    lines = []
    if contender.scores.broken:
        lines += [f"broken under {name or 'all attacks'}: {why}" for name, why in contender.scores.broken.items()]
    if breaks := [
        f"{row['attack']} from {100 * row['breaks'] // CLIENTS} % ({row['partition']})" for row in at if row["breaks"] is not None
    ]:
        lines.append("breaks under " + ", ".join(breaks[:4]) + (f" and {len(breaks) - 4} more" if len(breaks) > 4 else ""))
    elif at:
        lines.append("keeps more than half of its score under every attack")
    if wins := [f"{row['attack']} ({row['partition']})" for row in at if row.get("verdict") == "wins"]:
        lines.append("better than every other rule under " + ", ".join(wins[:4]) + (f" and {len(wins) - 4} more" if len(wins) > 4 else ""))
    if contender.contract is not None:
        lines.append(str(contender.contract).splitlines()[-1])
    if contender.name in contender.costs:
        own, mean = contender.costs[contender.name], contender.costs.get("mean")
        lines.append(f"{_microseconds(own)} a call{f', {own.seconds / mean.seconds:.3g} times the mean' if mean else ''}; {_memory(own)}")
    return lines + [f"not run under {name}: {why}" for name, why in contender.skipped.items()]


def _pages_of(contender: Contender, rules: Mapping[str, Scores], attacks: Sequence[str], at: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the sections about a contender: scores, places where it breaks or wins, contract, cost."""
    parts = []
    if rules:
        scores = np.stack([contender.scores.under[attack].mean(-1) for attack in attacks])  # [attacks, faced, skews]
        clean = np.broadcast_to(contender.scores.clean.mean(-1), (len(attacks), 1, len(SKEWS)))
        parts.append(
            section(
                f"Scores of {contender.name}", maps(attacks, ["0 %", *SHARES], np.concatenate([clean, scores], 1)), "Mean over the seeds."
            )
        )
        head = ["attack", "partition", *SHARES, "breaks from", "best other rule", "against it"]
        rows = [
            [
                row["attack"],
                row["partition"],
                *(f"{x:.3f}" for x in row["scores"]),
                "" if row["breaks"] is None else f"{100 * row['breaks'] // CLIENTS} %",
            ]
            + [row["rival"] or "", difference(dict(row))]
            for row in at
        ]
        note = "It breaks where less than half of its score without attackers is left. The best other rule is the best under this attack."
        parts.append(section("Where it breaks and wins", f'<div class="wide">{html_table(rows, head)}</div>', note))
    if contender.contract is not None:
        rows = [[row.property, "required" if row.required else "", row.holds, row.evidence] for row in contender.contract.rows]
        parts.append(section("Contract", html_table(rows, ["property", "contract", "holds", "evidence"])))
    if contender.costs:
        rows = [[name, _microseconds(each), _memory(each)] for name, each in contender.costs.items()]
        note = f"One aggregation of {CLIENTS} messages of the field's model, compiled, all on this machine."
        parts.append(section("Cost", html_table(rows, ["rule", "time", "memory"]), note))
    return parts


def _all(rules: Mapping[str, Scores], attacks: Sequence[str], order: Sequence[str]) -> str:
    """Draw the scores of all rules by rank under all attacks."""
    return maps(order, attacks, np.stack([cells(rules[name], attacks).mean((1, 3)) for name in order]))


def _notes(rules: Mapping[str, Scores]) -> list[list[str]]:
    """Tell what a reader of the table must know of single rules."""
    search = f"{built_in_attacks.BY_GRADIENTS} climbs the gradient of the harm through the rule itself; where a rule selects, that of the messages it selects"
    rows = [["worst case by gradients", search]]
    for name, scores in rules.items():
        lowered = [f"{told} where {faced} came" for faced, told in zip((0, *FACED), scores.told, strict=False) if told != faced]
        rows += [[name, f"built for at most {', '.join(lowered)}: it refuses more among {CLIENTS} clients"]] if lowered else []
        rows += [[name, f"{attack or 'all'}: {why}"] for attack, why in scores.broken.items()]
    return rows


def _microseconds(cost: Cost) -> str:
    """Write a cost's time."""
    return f"{1e6 * cost.seconds:,.3g} µs" if cost.seconds < 1e-3 else f"{1e3 * cost.seconds:,.3g} ms"


def _memory(cost: Cost) -> str:
    """Write a cost's memory."""
    return "memory unknown" if cost.bytes is None else f"{cost.bytes / 1e6:.3g} MB"
