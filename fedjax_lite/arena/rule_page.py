"""The sections about rules on the page of a contest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_lite.arena.attacks import BY_GRADIENTS
from fedjax_lite.arena.contender import Contender, memory, microseconds
from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.field import CLIENTS, FACED, SKEWS
from fedjax_lite.arena.page import SHARES, maps, section
from fedjax_lite.arena.ranking import cells
from fedjax_lite.arena.result import against
from fedjax_lite.report.document import Section
from fedjax_lite.report.table import html_table

SCORES = "Mean over the seeds, by the share of attackers; no number where the model of a seed is lost."
BREAKS = "It breaks where less than half of its score without attackers is left. The best other rule is the best under this attack."
SEARCH = (
    f"{BY_GRADIENTS} climbs the gradient of the harm through the rule itself, from the best of 24 lengths along three directions; where a "
    "rule selects, it climbs through the messages that are selected, and where a rule has no gradient the lengths alone are tried."
)


def sections_of(contender: Contender, met: Sequence[str], at: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Write the sections about a contender: scores, where it breaks and wins, contract, cost."""
    parts = []
    if at:
        scores = np.stack([contender.scores.under[attack].mean(-1) for attack in met])  # [attacks, faced, skews]
        clean = np.broadcast_to(contender.scores.clean.mean(-1), (len(met), 1, len(SKEWS)))
        drawn = maps(met, ["0 %", *SHARES], np.concatenate([clean, scores], 1))
        parts.append(
            section(
                f"Scores of {contender.name}",
                drawn,
                SCORES,
            )
        )
        head = ["attack", "partition", *SHARES, "breaks from", "best other rule", "against it"]
        parts.append(
            section("Where it breaks and wins", f'<div class="wide">{html_table(list(map(_place, at)), head, sortable=True)}</div>', BREAKS)
        )
    if contender.contract is not None:
        rows = [[row.property, "required" if row.required else "", row.holds, row.evidence] for row in contender.contract.rows]
        parts.append(section("Contract", html_table(rows, ["property", "contract", "holds", "evidence"])))
    if contender.costs:
        rows = [[name, microseconds(each), memory(each)] for name, each in contender.costs.items()]
        note = f"One aggregation of {CLIENTS} messages of the field's model, compiled, all on this machine."
        parts.append(section("Cost", html_table(rows, ["rule", "time", "memory"]), note))
    return parts


def _place(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of one attack and partition."""
    breaks = "" if row["breaks"] is None else f"{100 * row['breaks'] // CLIENTS} %"
    return [row["attack"], row["partition"], *(f"{x:.3f}" for x in row["scores"]), breaks, row["rival"] or "", against(row)]


def all_scores(rules: Mapping[str, Scores], met: Sequence[str], order: Sequence[str]) -> str:
    """Draw the scores of all rules, in order, under all attacks."""
    return maps(order, met, np.stack([cells(rules[name], met).mean((1, 3)) for name in order]))


def notes_on(rules: Mapping[str, Scores]) -> str:
    """Tell what a reader of the table must know of single rules."""
    rows = [["worst case by gradients", SEARCH]]
    for name, scores in rules.items():
        lowered = [f"{told} where {faced} came" for faced, told in zip((0, *FACED), scores.told, strict=False) if told != faced]
        if lowered:
            rows.append([name, f"built for {', '.join(lowered)}: it refuses more among {CLIENTS} clients"])
        rows += [[name, f"{attack or 'all attacks'}: {why}"] for attack, why in scores.broken.items()]
    return html_table(rows)
