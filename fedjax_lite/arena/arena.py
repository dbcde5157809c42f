"""`fl.arena`: is my aggregator, attack or uplink any good?"""

import datetime
import inspect
import time
from collections.abc import Callable, Container
from typing import Any

import optax

from fedjax_lite import checks
from fedjax_lite.arena.attacks import ATTACKS
from fedjax_lite.arena.contender import MINUTES, contender_of
from fedjax_lite.arena.contest import contest
from fedjax_lite.arena.field import CLIENTS, ROUNDS, SEEDS, Field, field
from fedjax_lite.arena.of_attacks import Intruder, of_attacks
from fedjax_lite.arena.of_rules import of_rules
from fedjax_lite.arena.of_uplinks import of_uplinks
from fedjax_lite.arena.result import Arena
from fedjax_lite.arena.rules import RULES, Make
from fedjax_lite.arena.stored import Table, cut, is_like, load
from fedjax_lite.arena.traffic import traffic
from fedjax_lite.arena.uplinks import UPLINKS
from fedjax_lite.attacks import Attack
from fedjax_lite.base import Aggregator
from fedjax_lite.refuse import integer, positive
from fedjax_lite.runner.environment import environment
from fedjax_lite.runner.progress import say

BREAKDOWN = "withstands far-away messages"


def arena(
    contender: Any = None,
    *,
    name: str | None = None,
    seeds: int = SEEDS,
    rounds: int = ROUNDS,
    again: bool = False,
    minutes: float = MINUTES,
    progress: bool = True,
) -> Arena:
    """Rank an aggregator, an attack or an uplink among all built-in ones, on one field with one table.

    An aggregator meets every built-in attack, by 10, 20 and 30 % of 20 clients, on digits dealt evenly and by Dirichlet(0.3); its
    contract is checked, its breakdown, time and memory are measured. An attack meets every built-in aggregator. An uplink is trained with,
    and its score stands against its bits. Only the contender is run: the built-in ones' scores come with the package.

    Args:
        contender: an aggregator; a function of `num_byzantine` that makes one, which is told how many attackers there are; an attack; an
            uplink. None: the built-in aggregators alone.
        name: of the contender.
        seeds: of data, model, attackers and draws; at most 5 where the built-in scores are not run again.
        rounds: of a run. Built-in scores are of 40, so with others a contender stands alone.
        again: run what is built in too, in some 20 to 50 minutes on two cores; `save` then writes their table.
        minutes: what would take longer is not run and told so, the worst case by gradients first.
        progress: say on a terminal what is being done.

    Returns:
        An `Arena`: `table` (a dict a row, the best first), `ranking()`, `save(folder)` for a page and all scores; `print` shows some 20
            lines.

    Raises:
        TypeError: for a contender that is none of these.
        ValueError: for numbers below 1, a shipped table of another field.

    >>> found = arena()
    >>> found.kind, found.ranking().index("median") < found.ranking().index("mean"), 0 < found.row("median")["worst"] < 1
    ('aggregator', True, True)
    """
    _check(contender)
    integer("arena", "seeds", seeds, least=1)
    integer("arena", "rounds", rounds, least=1)
    positive("arena", "minutes", minutes)
    shown: Callable[[str], None] = say if progress else lambda text: None
    table, notes = _table(rounds, seeds, again, shown)
    if contender is None:
        if not table.rules:
            raise ValueError(f"arena: no table is shipped for rounds={rounds}, seeds={seeds}: give again=True to make it, or a contender")
        return of_rules(table, None, notes)
    place = field(rounds, seeds)
    if isinstance(contender, Attack):
        return of_attacks(table, _against_all(place, contender, _apart(name or "my attack", ATTACKS), table, shown), notes)
    if isinstance(contender, optax.GradientTransformation):
        name = _apart(name or "my uplink", UPLINKS)
        shown(name)
        beside = table if table.uplinks else table._replace(uplinks={"none": traffic(place, None)})
        return of_uplinks(beside, name, traffic(place, contender), notes)
    name = _apart(name or str(getattr(contender, "__name__", "my rule")), RULES)
    return of_rules(table, contender_of(place, _make_of(contender), name, minutes, shown), notes)


def _against_all(place: Field, attack: Attack, name: str, table: Table, shown: Callable[[str], None]) -> Intruder:
    """Let an attack meet every built-in rule; their scores without attackers are the table's, where it has them."""
    met = {}
    for rule, make in RULES.items():
        shown(f"{name} against {rule}")
        scores = contest(place, make, {name: attack}, clean=rule not in table.rules)
        met[rule] = scores._replace(clean=table.rules[rule].clean) if rule in table.rules else scores
    return Intruder(name, met)


def _table(rounds: int, seeds: int, again: bool, shown: Callable[[str], None]) -> tuple[Table, list[str]]:
    """Return the scores of what is built in, and what is to be said of them: shipped, made again, or none."""
    if again:
        return _made(field(rounds, seeds), shown), []
    if is_like(rounds, seeds):
        return cut(load(), seeds), []
    alone = f"alone: the scores of what is built in are of {ROUNDS} rounds and {SEEDS} seeds; --all or again=True runs it too"
    return Table(rounds, seeds, {}, {}, {}), [alone]


def _made(place: Field, shown: Callable[[str], None]) -> Table:
    """Run all that is built in."""
    began, date = time.perf_counter(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rules = {}
    for name, make in RULES.items():
        shown(f"{name} against {len(ATTACKS)} attacks")
        scores = contest(place, make, ATTACKS)
        report = checks.aggregator(make(scores.told[-1]), clients=CLIENTS, only=[BREAKDOWN])
        rules[name] = scores._replace(breakdown=report.breakdown)
    uplinks = {}
    for name, uplink in UPLINKS.items():
        shown(name)
        uplinks[name] = traffic(place, uplink)
    return Table(place.rounds, place.seeds, rules, uplinks, {"date": date, "seconds": round(time.perf_counter() - began), **environment()})


def _make_of(contender: Any) -> Make:
    """Return the function from a number of Byzantine clients to the contender."""
    if isinstance(contender, Aggregator):
        return lambda num_byzantine: contender
    return lambda num_byzantine: contender(num_byzantine=num_byzantine)


def _check(contender: Any) -> None:
    """Refuse what is no contender."""
    if isinstance(contender, Aggregator | Attack | optax.GradientTransformation | None):
        return
    takes = inspect.signature(contender).parameters.values() if callable(contender) else ()
    if not any(each.name == "num_byzantine" or each.kind is each.VAR_KEYWORD for each in takes):
        raise TypeError(
            "arena: contender must be a fl.Aggregator, a function of num_byzantine that makes one, a fl.attacks.Attack or an uplink, got "
            f"{contender!r}: call the function that makes it"
        )


def _apart(name: str, known: Container[str]) -> str:
    """Return a contender's name, told apart from built-in ones."""
    return f"{name} (contender)" if name in known else name
