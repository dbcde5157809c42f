"""A contest of attacks: its text, its page, its values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.arena import attacks as built_in
from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.page import EACH_ALONE, SHARES, maps, page, paragraph, ranked, section
from fedjax_lite.arena.ranking import cells, damage, damages, rank_attacks, withstanding
from fedjax_lite.arena.result import Arena, against, counted, printed, spread, with_interval
from fedjax_lite.arena.stored import Table, text_of

DAMAGE = (
    "Mean damage: how much of its score a rule loses beside no attack, in the mean over rules, 10, 20 and 30 % attackers and both "
    "partitions. "
    "Best rule's: the damage to the rule that loses least, which is what a server that knows the attack would choose."
)


class Intruder(NamedTuple):
    """An attack of one's own, and what became of each rule under it."""

    name: str
    scores: dict[str, Scores]  # rule -> scores, of which `under` has the attack's alone


def of_attacks(table: Table, contender: Intruder, notes: Sequence[str] = ()) -> Arena:
    """Rank a contender among the attacks of a table."""
    own = contender.name
    stored = {name: each.under for name, each in table.rules.items()}
    rules = {name: each._replace(under=stored.get(name, {}) | each.under) for name, each in contender.scores.items()}
    known = [attack for attack in built_in.ATTACKS if all(attack in each.under for each in rules.values())]
    rows = rank_attacks(rules, [*known, own], own)
    row = next(row for row in rows if row["attack"] == own)
    told = _told(own, row, f"{row['rank']} of {len(rows)}", counted(rows), rules)
    head = ["rank", "attack", "mean damage", "best rule's", "best rule", "rules that withstand", "against it"]
    lines = [told[0], *printed(head, rows, own, _columns), *told[1:], *notes]
    note = f"{DAMAGE} {EACH_ALONE}"
    parts = [
        section("Ranking", ranked(head, [[*_columns(row), against(row)] for row in rows], own), note),
        section(f"Scores of the rules under {own}", _under(rules, own), "Mean over the seeds; the rule that loses least comes first."),
        section(
            "Damage of all attacks",
            maps(
                [row["attack"] for row in rows],
                list(rules),
                np.stack([_damages(rules, row["attack"]) for row in rows]),
                lower_is_better=True,
            ),
            "Mean over the seeds and over 10, 20 and 30 % attackers; lighter is worse for the server.",
        ),
    ]
    values = text_of(table, {own: {name: {"clean": each.clean, "under": each.under[own]} for name, each in contender.scores.items()}})
    text = page(f"Arena: {own}", paragraph([*told, *notes]), parts, table.rounds, table.seeds, table.made, built_in.LEFT_OUT)
    return Arena("attack", own, tuple(rows), tuple(lines), text, values)


def _told(own: str, row: Mapping[str, Any], rank: str, others: str, rules: Mapping[str, Scores]) -> list[str]:
    """Say where a contender stands, which rule is best against it, and which withstand."""
    kept = withstanding(rules, own)
    beside = f"; {others} attacks" if others else ""
    return [
        f"{own}: rank {rank} by mean damage ({with_interval(row, 'mean')}){beside}",
        f"the best rule against it, {row['rule']}, loses {row['least']:.3f}: rank {row['least_rank']} by the damage to the best rule",
        f"{len(kept)} of {len(rules)} rules keep nine tenths of their score" + (f": {', '.join(kept[:6])}" if kept else ""),
        *(f"broken with {name}: {why}" for name, each in rules.items() for why in each.broken.values()),
    ]


def _columns(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one attack's row, in print and on the page."""
    return [row["rank"], row["attack"], spread(row, "mean"), spread(row, "least"), row["rule"], row["withstand"]]


def _under(rules: Mapping[str, Scores], attack: str) -> str:
    """Draw each rule's scores without attackers and under an attack."""
    order = sorted(rules, key=lambda name: damage({name: rules[name]}, attack).mean())
    clean = np.stack([np.nan_to_num(rules[name].clean).mean(-1)[None] for name in order])
    under = np.stack([cells(rules[name], [attack])[0].mean(-1) for name in order])
    return maps(order, ["0 %", *SHARES], np.concatenate([clean, under], 1))


def _damages(rules: Mapping[str, Scores], attack: str) -> np.ndarray:
    """Return the mean damage to each rule in each partition, `[rules, skews]`."""
    return np.stack([damages(each, attack).mean((0, 2)) for each in rules.values()])
