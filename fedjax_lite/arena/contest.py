"""One rule against attacks on the field: every number of attackers, partition and seed, in as few programs as the rule allows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.arena.attacks import BY_GRADIENTS, WITHOUT_GRADIENTS, one_of
from fedjax_lite.arena.field import CLIENTS, FACED, SKEWS, Field, message, train
from fedjax_lite.arena.rules import Make
from fedjax_lite.attacks import Attack
from fedjax_lite.base import Aggregator
from fedjax_lite.engine.compute import compute
from fedjax_lite.engine.programs import programs_of
from fedjax_lite.refuse import one_line
from fedjax_lite.sampling import cohort


class Scores(NamedTuple):
    """What became of one rule. A score is an accuracy on held-out examples, NaN where the model or the cell is lost."""

    clean: np.ndarray  # [skews, seeds], without attackers
    under: dict[str, np.ndarray]  # attack -> [faced, skews, seeds]
    told: tuple[int, ...] = ()  # the number of Byzantine clients that the rule was built for: without attackers, then as faced
    broken: dict[str, str] = {}  # attack, or "" for all of the rule -> what went wrong
    breakdown: int | None = None  # far-away messages of CLIENTS that the rule withstood


class Bout(NamedTuple):
    """One run: rows of the attacks, of (0, *FACED), of the skews and of the seeds."""

    attack: Any
    faced: Any
    skew: Any
    draw: Any


def contest(field: Field, make: Make, attacks: Mapping[str, Attack], clean: bool = True) -> Scores:
    """Let a rule meet every attack.

    Args:
        field: of the arena.
        make: number of Byzantine clients -> the rule. A number that the rule refuses is lowered until the rule accepts.
        attacks: by name.
        clean: whether to run without attackers too; else `clean` is NaN.

    Returns:
        `Scores`; an error of the rule is told in `broken`, and loses only the cells in which it is raised.
    """
    lost = np.full((len(SKEWS), field.seeds), np.nan)
    under = {name: np.full((len(FACED), *lost.shape), np.nan) for name in attacks}
    try:
        told = tuple(_accepted(make, f) for f in (0, *FACED))
    except Exception as error:
        return Scores(lost, under, broken={"": one_line(error)})
    broken: dict[str, str] = {}
    if clean:
        found = _meet(field, make, told, {}, broken)
        if broken:  # then it trains under no attack
            return Scores(lost, under, told, broken)
        lost = found[""]
    met = _meet(field, make, told, attacks, broken) if attacks else {}
    return Scores(lost, under | met, told, broken)


def _meet(field: Field, make: Make, told: Sequence[int], attacks: Mapping[str, Attack], broken: dict[str, str]) -> dict[str, np.ndarray]:
    """Return the scores under attacks, or for none of them those without attackers; note in `broken` what raises an error.

    Where a program fails, each half of its attacks is tried apart.
    """
    faced = range(1, 1 + len(FACED)) if attacks else [0]
    bouts = [
        Bout(i, f, skew, draw) for i in range(len(attacks) or 1) for f in faced for skew in range(len(SKEWS)) for draw in range(field.seeds)
    ]
    try:
        scores = _run(field, make, told, list(attacks.values()), bouts)
    except Exception as error:
        names = list(attacks)
        if len(names) > 1:
            halves = names[: len(names) // 2], names[len(names) // 2 :]
            parts = [_meet(field, make, told, {name: attacks[name] for name in half}, broken) for half in halves]
            return {name: x for part in parts for name, x in part.items()}
        if names == [BY_GRADIENTS] and attacks[BY_GRADIENTS] is not WITHOUT_GRADIENTS:
            found = _meet(field, make, told, {BY_GRADIENTS: WITHOUT_GRADIENTS}, broken)
            broken.setdefault(BY_GRADIENTS, f"searched without gradients, which the rule does not have: {one_line(error)}")
            return found
        broken["".join(names)] = one_line(error)
        return {}
    shaped = scores.reshape(-1, len(faced), len(SKEWS), field.seeds)
    return dict(zip(attacks, shaped, strict=True)) if attacks else {"": shaped[0, 0]}


def _run(field: Field, make: Make, told: Sequence[int], attacks: Sequence[Attack], bouts: Sequence[Bout]) -> np.ndarray:
    """Return the score of each bout; all bouts are operands of one program, or of one for each number that the rule must know."""
    columns = Bout(*(np.asarray(column, np.int32) for column in zip(*bouts, strict=True)))

    def experiment(num_byzantine, seed):
        bout = jax.tree.map(lambda column: jnp.asarray(column)[seed], columns)
        attack = one_of(attacks, bout.attack) if len(attacks) > 1 else next(iter(attacks), None)
        return {"score": train(field, make(num_byzantine), bout.skew, bout.draw, attack, bout.faced)["score"]}

    # A study's programs check each value once as a Python number, and only "seed" is free of that.
    runs = [{"num_byzantine": told[bout.faced], "seed": i} for i, bout in enumerate(bouts)]
    programs = programs_of(experiment, runs, [""] * len(runs))
    scores = np.full(len(bouts), np.nan)
    for program, found in zip(programs, compute(programs), strict=True):
        scores[program.runs] = found["score"]
    return scores


def _accepted(make: Make, num_byzantine: int) -> int:
    """Return the largest number of Byzantine clients up to `num_byzantine` for which the rule can be made and traced."""
    try:
        trace(make(num_byzantine))
        return num_byzantine
    except ValueError:
        if not num_byzantine:
            raise
    return _accepted(make, num_byzantine - 1)


def trace(rule: Any) -> None:
    """Trace a rule on the field's messages; raises what the rule does."""
    if not isinstance(rule, Aggregator):
        raise TypeError(f"arena: a rule must be a fl.Aggregator, got {rule!r}: call the function that makes one")
    clients = cohort(jax.random.key(0), jnp.full(CLIENTS, 10), jnp.arange(CLIENTS))

    def once(stack):
        state = rule.init(jax.tree.map(lambda x: x[0], stack))
        return rule.finish(rule.collect(stack, clients, state), state, jax.random.key(1))[0]

    jax.eval_shape(once, jax.tree.map(lambda x: jax.ShapeDtypeStruct((CLIENTS, *x.shape), x.dtype), message()))
