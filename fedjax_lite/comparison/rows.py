"""A contender's row in a comparison, and notes on what is not alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lite.comparison.entries import BITS, Entry
from fedjax_lite.comparison.groups import Contender
from fedjax_lite.metrics import HOURS, is_evaluation
from fedjax_lite.study.statistics import bootstrapped, with_interval

__all__ = ["mean_of", "notes_of", "row_of"]


def row_of(one: Contender, metric: str, target: float, lower: bool, first: Contender) -> dict[str, Any]:
    """Return a contender's row, as `compare` says."""
    finals = np.array(list(one.by_seed(metric, one.rounds).values()), np.float64)
    mean, final_low, final_high = with_interval(finals)
    curves = [run.curves[metric] for run in one.runs if metric in run.curves]
    sign = 1 if lower else -1
    bests = [np.nanargmin(sign * curve.values) for curve in curves if np.isfinite(curve.values).any()]
    best = [curve.values[place] for curve, place in zip(curves, bests, strict=True)] if len(bests) == len(curves) else []
    at = [curve.rounds[place] for curve, place in zip(curves, bests, strict=True)] if best else []
    to = [_reached(run, metric, target, lower) for run in one.runs]
    hours = [_at(run, HOURS, round) for run, round in zip(one.runs, to, strict=True) if round is not None]
    common = min(one.rounds, first.rounds)
    pairs = _pairs(one.by_seed(metric, common), first.by_seed(metric, common)) if one is not first else np.zeros(0)
    difference, low, high = bootstrapped(pairs)
    return {
        "contender": one.name,
        "seeds": len(one.runs),
        "status": ", ".join(dict.fromkeys(run.status for run in one.runs)),
        "rounds": one.rounds,
        "final": mean,
        "low": final_low,
        "high": final_high,
        "best": mean_of(best),
        "best_round": mean_of(at),
        "rounds_to_target": mean_of(to) if None not in to else None,
        "reached": sum(round is not None for round in to),
        "hours_to_target": mean_of(hours) if len(hours) == len(to) else None,
        "megabytes": mean_of(_at(run, BITS, run.rounds, 8e6) for run in one.runs),
        "hours": mean_of(_at(run, HOURS, run.rounds) for run in one.runs),
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "pairs": int(pairs.size),
    }


def _reached(run: Entry, metric: str, target: float, lower: bool) -> int | None:
    """Return the round of a run's first evaluation that reaches the target; None if none does."""
    if metric not in run.curves:
        return None
    curve = run.curves[metric]
    there = np.flatnonzero(curve.values <= target if lower else curve.values >= target)
    return int(curve.rounds[there[0]]) if there.size else None


def _at(run: Entry, name: str, round: int, divisor: float = 1.0) -> float | None:
    """Return a running total of a run, such as its hours, at the last point up to a round; None where it has no such total."""
    curve = run.curves.get(name)
    there = np.flatnonzero(curve.rounds <= round) if curve else np.zeros(0, int)
    return float(curve.values[there[-1]]) / divisor if curve and there.size else None


def _pairs(one: dict[Any, float], other: dict[Any, float]) -> np.ndarray:
    """Return the differences at the seeds that both have."""
    return np.array([one[seed] - other[seed] for seed in one if seed is not None and seed in other], np.float64)


def mean_of(values: Any) -> float | None:
    """Average numbers; None where there are none, or one is None or not finite."""
    found = list(values)
    if not found or None in found or not np.isfinite(np.array(found, np.float64)).all():
        return None
    return float(np.mean(found))


def notes_of(contenders: Sequence[Contender], metric: str) -> list[str]:
    """Say what is not alike, and so what a row is not to be read as."""
    notes = []
    for one in contenders:
        for run in one.runs:
            if run.wanted and run.rounds < run.wanted and run.status not in ("converged", "not run"):
                notes.append(f"{run.name} is {run.status} after {run.rounds} of {run.wanted} rounds")
            if metric in run.outside:
                notes.append(
                    f"{run.name} is private, and {metric} is outside its guarantee: it is computed from clients' data without noise"
                )
            if run.status == "not run":
                notes.append(f"{run.name} was not run")
        if metric not in one.metrics() and any(run.curves for run in one.runs):
            has = ", ".join(filter(is_evaluation, one.metrics())) or "no evaluation at all"
            notes.append(f"{one.name} has no {metric}: it has {has}")
        if len({run.rounds for run in one.runs}) > 1:
            notes.append(f"the runs of {one.name} have {', '.join(str(run.rounds) for run in one.runs)} rounds")
    first = contenders[0]
    for one in contenders[1:]:
        if one.rounds != first.rounds:
            least = min(one.rounds, first.rounds)
            notes.append(f"{one.name} has {one.rounds} rounds, {first.name} {first.rounds}: their difference is after {least}")
        known = {run.seed: run.data for run in first.runs}
        if any(run.data and known.get(run.seed, run.data) not in ("", run.data) for run in one.runs):
            notes.append(f"{one.name} was trained on other data than {first.name}")
        if first.settings and one.settings and not {run.seed for run in one.runs} & known.keys():
            notes.append(f"{one.name} and {first.name} have no seed in common: there is nothing to pair")
    if all(len(one.runs) == 1 for one in contenders) and len(contenders) > 1:
        notes.append("one seed each: no interval can be told; run more with --set seed=1, seed=2, ...")
    return list(dict.fromkeys(notes))
