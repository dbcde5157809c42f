"""Rank rules, attacks and uplinks by their scores, with intervals over the seeds, and pairs of them seed by seed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.field import FACED, SKEWS
from fedjax_lite.arena.traffic import Traffic
from fedjax_lite.study.statistics import interval, ranks, with_interval

HALF, MOST = 0.5, 0.9  # shares of the score without attackers, below which a rule breaks and above which it withstands


class Pair(NamedTuple):
    """One contender beside another, seed by seed."""

    difference: float
    low: float | None  # of the 95 % interval; None with one seed
    high: float | None
    verdict: str  # "wins", "loses", "ties", or "open" with one seed


def pair(one: np.ndarray, other: np.ndarray) -> Pair:
    """Compare values `[seeds]` of two that met the same draws: higher wins, where the interval of the difference leaves out 0.

    >>> pair(np.array([0.9, 0.8, 0.9]), np.array([0.5, 0.4, 0.6])).verdict, pair(np.array([0.9]), np.array([0.5])).verdict
    ('wins', 'open')
    """
    mean, half = interval(one - other)
    assert mean is not None
    if half is None:
        return Pair(mean, None, None, "open" if mean else "ties")
    return Pair(mean, mean - half, mean + half, "wins" if mean > half else "loses" if mean < -half else "ties")


def cells(scores: Scores, attacks: Sequence[str]) -> np.ndarray:
    """Stack a rule's scores, `[attacks, faced, skews, seeds]`; a lost cell is 0."""
    lost = np.full((len(FACED), *scores.clean.shape), np.nan)
    return np.nan_to_num(np.stack([scores.under.get(attack, lost) for attack in attacks]), nan=0.0)


def worst(scores: Scores, attacks: Sequence[str]) -> np.ndarray:
    """Average over numbers of attackers and partitions the score under the attack that hurts most there, `[seeds]`."""
    return cells(scores, attacks).min(0).mean((0, 1))


def average(scores: Scores, attacks: Sequence[str]) -> np.ndarray:
    """Average the score over attacks, numbers of attackers and partitions, `[seeds]`."""
    return cells(scores, attacks).mean((0, 1, 2))


def rank_rules(rules: Mapping[str, Scores], attacks: Sequence[str], contender: str | None = None) -> list[dict[str, Any]]:
    """Rank rules by `worst`, and by `average` beside it.

    Returns:
        A dict a rule, the best first: "rule", "rank", "worst" and its interval "worst_low", "worst_high", "mean" with "mean_rank" and
        interval, "clean", "broken" (cells without a score), "breakdown"; beside a contender also "difference", "low", "high" and "verdict"
        of the contender against the rule in the worst case.
    """
    rows = []
    for name, scores in rules.items():
        row = {"rule": name} | _spread("worst", worst(scores, attacks)) | _spread("mean", average(scores, attacks))
        row |= {"clean": float(np.nan_to_num(scores.clean).mean()), "broken": int(np.isnan([scores.under[a] for a in attacks]).sum())}
        row |= {"breakdown": scores.breakdown}
        if contender is not None and name != contender:
            row |= pair(worst(rules[contender], attacks), worst(scores, attacks))._asdict()
        rows.append(row)
    return _ranked(rows, "worst", mean_rank="mean")


def places(rules: Mapping[str, Scores], attacks: Sequence[str], contender: str) -> list[dict[str, Any]]:
    """Tell for each attack and partition where a contender breaks, and how it stands beside the best other rule there.

    Returns:
        Dicts of "attack", "partition", "scores" (at each number of attackers), "breaks" (the least number of attackers at which less than
        half of the score without attackers is left, or None), "rival" (the best other rule), and of the pair of the two.
    """
    own = rules[contender]
    found = []
    for attack in attacks:
        for skew, partition in enumerate(SKEWS):
            at = {name: cells(scores, [attack])[0, :, skew] for name, scores in rules.items()}  # [faced, seeds]
            means = at[contender].mean(-1)
            broken = [f for f, mean in zip(FACED, means, strict=True) if mean < HALF * np.nan_to_num(own.clean[skew]).mean()]
            rival = max((name for name in rules if name != contender), key=lambda name: at[name].mean(), default=None)
            row = {"attack": attack, "partition": partition, "scores": means.tolist(), "breaks": min(broken, default=None), "rival": rival}
            found.append(row | (pair(at[contender].mean(0), at[rival].mean(0))._asdict() if rival is not None else {}))
    return found


def damage(rules: Mapping[str, Scores], attack: str) -> np.ndarray:
    """Return what an attack costs each rule beside no attack, in the mean over numbers of attackers and partitions, `[rules, seeds]`.

    An attack that could not be run against a rule costs it nothing.
    """
    return np.stack([damages(scores, attack).mean((0, 1)) for scores in rules.values()])


def damages(scores: Scores, attack: str) -> np.ndarray:
    """Return what an attack costs one rule, `[faced, skews, seeds]`."""
    lost = np.nan_to_num(scores.clean)[None] - cells(scores, [attack])[0]
    return np.zeros_like(lost) if attack in scores.broken and np.isnan(scores.under[attack]).all() else lost


def rank_attacks(rules: Mapping[str, Scores], attacks: Sequence[str], contender: str | None = None) -> list[dict[str, Any]]:
    """Rank attacks by their mean damage over the rules, and by the damage to the rule that loses least.

    Returns:
        A dict an attack, the most harmful first: "attack", "rank", "mean" and "least" with intervals, "least_rank", "rule" (which loses
        least), "withstand" (how many rules keep nine tenths of their score); beside a contender also "difference", "low", "high",
        "verdict".
    """
    rows, names = [], list(rules)
    for attack in attacks:
        of = damage(rules, attack)
        row = {"attack": attack} | _spread("mean", of.mean(0)) | _spread("least", of.min(0))
        row |= {"rule": names[int(of.mean(-1).argmin())], "withstand": len(withstanding(rules, attack))}
        if contender is not None and attack != contender:
            row |= pair(damage(rules, contender).mean(0), of.mean(0))._asdict()
        rows.append(row)
    return _ranked(rows, "mean", least_rank="least")


def withstanding(rules: Mapping[str, Scores], attack: str) -> list[str]:
    """Return the rules that keep nine tenths of their score without attackers under an attack."""
    clean = {name: np.nan_to_num(scores.clean).mean() for name, scores in rules.items()}
    return [name for name, scores in rules.items() if clean[name] > 0 and damages(scores, attack).mean() <= (1 - MOST) * clean[name]]


def rank_uplinks(uplinks: Mapping[str, Traffic], contender: str | None = None) -> list[dict[str, Any]]:
    """Rank uplinks by their score, and mark those that no other beats in score and bits.

    Returns:
        A dict an uplink, the best score first: "uplink", "rank", "score" with interval, "bits" of a message, "share" of the bits of
        "none", "front"; beside a contender also "difference", "low", "high", "verdict" of the scores.
    """
    rows, dense = [], uplinks["none"].bits if "none" in uplinks else np.nan
    per_seed = {name: np.nan_to_num(each.scores).mean(0) for name, each in uplinks.items()}
    for name, each in uplinks.items():
        row = {"uplink": name} | _spread("score", per_seed[name]) | {"bits": each.bits, "share": each.bits / dense}
        row["front"] = bool(np.isfinite(each.bits)) and not any(
            _beats((per_seed[other].mean(), uplinks[other].bits), (per_seed[name].mean(), each.bits)) for other in uplinks
        )
        if contender is not None and name != contender:
            row |= pair(per_seed[contender], per_seed[name])._asdict()
        rows.append(row)
    return _ranked(rows, "score")


def _beats(one: tuple[Any, float], other: tuple[Any, float]) -> bool:
    """Return whether `one`, of a score and bits, is as good as `other` in both, and better in one."""
    return bool(one[0] >= other[0] and one[1] <= other[1] and one != other)


def _spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Return the mean of values `[seeds]` under `name`, and its interval."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), with_interval(values), strict=True))


def _ranked(rows: list[dict[str, Any]], by: str, **also: str) -> list[dict[str, Any]]:
    """Sort rows by a column, the highest first, and number them; also number them by other columns: a new name = the column."""
    for name, column in {"rank": by, **also}.items():
        order = ranks([row[column] for row in rows], [0] * len(rows), lower_is_better=False)
        for row, rank in zip(rows, order, strict=True):
            row[name] = rank
    return sorted(rows, key=lambda row: row["rank"])
