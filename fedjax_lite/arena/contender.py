"""A rule of one's own beside the built-in ones: its scores, contract and cost, and whether there is time for every attack."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fedjax_lite import checks
from fedjax_lite.arena.attacks import AGGREGATIONS, ATTACKS, BY_GRADIENTS
from fedjax_lite.arena.contest import Scores, contest
from fedjax_lite.arena.field import CLIENTS, FACED, SKEWS, Field, message
from fedjax_lite.arena.rules import RULES, Make
from fedjax_lite.base import Aggregator
from fedjax_lite.checks.cost import Cost, cost
from fedjax_lite.checks.report import Report

MINUTES = 10.0  # that the aggregations of a contender may take
BESIDE = ("mean", "median", "krum")  # rules whose cost is measured beside a contender's


class Contender(NamedTuple):
    """A rule of one's own, and what was found of it."""

    name: str
    scores: Scores
    contract: Report | None = None
    costs: dict[str, Cost] = {}  # its own and some built-in rules', on this machine
    skipped: dict[str, str] = {}  # attack -> why it was not run


def contender_of(field: Field, make: Make, name: str, minutes: float, say: Callable[[str], None]) -> Contender:
    """Check the contract of a rule, measure its cost, and let it meet the attacks for which `minutes` last."""
    say(f"{name}: contract and breakdown")
    scores = contest(field, make, {}, clean=False)
    if scores.broken:  # it cannot be made, or traced
        return Contender(name, contest(field, make, ATTACKS))
    rule = make(scores.told[-1])
    report = checks.aggregator(rule, clients=CLIENTS)
    costs = _costs({name: rule} | {each: RULES[each](FACED[-1]) for each in BESIDE})
    met, skipped = affordable(costs[name].seconds if name in costs else 0.0, field.seeds * field.rounds, minutes)
    if met:
        say(f"{name} against {len(met)} attacks")
        scores = contest(field, make, {attack: ATTACKS[attack] for attack in met})
    return Contender(name, scores._replace(breakdown=report.breakdown), report, costs, skipped)


def affordable(seconds: float, rounds: int, minutes: float) -> tuple[Sequence[str], dict[str, str]]:
    """Choose the attacks for which there is time, and say why others are skipped; the worst case by gradients goes first.

    Args:
        seconds: of one aggregation.
        rounds: of all seeds together.
        minutes: that aggregations may take.

    >>> affordable(1e-4, 200, 10.0)[1], list(affordable(0.02, 200, 10.0)[1]), affordable(1.0, 200, 10.0)[0]
    ({}, ['worst_case(budget=10)'], [])
    """
    of_each = len(FACED) * len(SKEWS) * rounds
    plain, climbed = (times * of_each * seconds / 60 for times in (len(ATTACKS) - 1, AGGREGATIONS))
    why = f"would take {{:.3g}} minutes at {seconds:.3g} s a call: allow more minutes, or fewer seeds"
    if plain > minutes:
        return [], dict.fromkeys(ATTACKS, why.format(plain + climbed))
    if plain + climbed > minutes:
        return [attack for attack in ATTACKS if attack != BY_GRADIENTS], {BY_GRADIENTS: why.format(climbed)}
    return list(ATTACKS), {}


def _costs(rules: dict[str, Aggregator]) -> dict[str, Cost]:
    """Measure each rule's cost; a rule that cannot be compiled has none."""
    found = {}
    for name, rule in rules.items():
        try:
            found[name] = cost(rule, message(), CLIENTS)
        except Exception:  # the contract's rows say what
            continue
    return found


def microseconds(cost: Cost) -> str:
    """Write a cost's time."""
    return f"{1e6 * cost.seconds:,.3g} µs" if cost.seconds < 1e-3 else f"{1e3 * cost.seconds:,.3g} ms"


def memory(cost: Cost) -> str:
    """Write a cost's memory."""
    return "memory unknown" if cost.bytes is None else f"{cost.bytes / 1e6:.3g} MB"
