"""The privacy of a run: refuse runs that no accountant covers; epsilon for summary, report and terminal."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite.base import Algorithm, Mechanism
from fedjax_lite.metrics import inside_guarantee
from fedjax_lite.privacy.accountant import accounted, covered, refuse_more_rounds
from fedjax_lite.sampling.participation import Sampler

POINTS = 5  # numbers of rounds on a curve of epsilon; an accountant takes up to a second for each


def is_central(test: Any) -> bool:
    """Return whether the test examples belong to no client: `test` has all of them in a single row."""
    return test is not None and test.population == 1


def check_private(
    mechanism: Mechanism | None,
    sampler: Sampler,
    sizes: Any,
    rounds: int,
    decisive: Mapping[str, str] = MappingProxyType({}),
    hides: bool = False,
    central: bool = False,
) -> None:
    """Refuse a private run that no accountant covers, or that decides something by a metric outside its guarantee.

    Args:
        sizes: how many examples each client holds, `[population]`; a tracer in a study.
        decisive: an argument of `fl.run` -> the metric by which the run decides when to stop, or which model to keep.
        hides: whether clients hide their data themselves.
        central: whether the test examples belong to no client.

    Raises:
        ValueError: for a run that is refused, with the reason.
    """
    if mechanism is not None:
        covered(mechanism, sampler, len(sizes))
        refuse_more_rounds(mechanism, rounds)
        empty = 0 if isinstance(sizes, jax.core.Tracer) else int(np.sum(np.asarray(sizes) == 0))
        if mechanism.shares and empty:
            raise ValueError(
                f"data: {empty} clients hold no examples, so they send nothing and their share of the noise is missing: drop them"
            )
    for argument, metric in decisive.items() if mechanism is not None or hides else ():
        if not inside_guarantee(metric, central):
            what = "when a private run stops" if argument == "converge" else "which model a private run keeps"
            raise ValueError(
                f"{argument}: {metric} is computed from clients' data without noise, so {what} would give it away: "
                "take update_norm, or a metric of test examples that are no client's"
            )


def spending(
    mechanism: Mechanism | None,
    hides: bool,
    sampler: Sampler,
    population: int,
    rounds: int,
    delta: float,
    names: Sequence[str],
    account: bool = True,
) -> dict[str, Any] | None:
    """Return epsilon by rounds and accountant, with sampling and relation; None for a run that is not private.

    Args:
        hides: whether clients hide their data themselves.
        names: of the metrics outside the guarantee.
        account: whether to take the time, up to seconds, that accountants take.
    """
    if mechanism is None:
        note = "clients hide their data themselves: docs/privacy.md says what their settings add up to"
        return {"note": note, "outside": names} if hides else None
    summary: dict[str, Any] = {"noise_multiplier": float(mechanism.noise_multiplier), "delta": delta}
    if not account:
        return summary | {"note": "not accounted for, since the run has no folder (out)", "outside": names}
    if find_spec("dp_accounting") is None:
        return summary | {"note": 'not accounted for: pip install "fedjax_lite[privacy]"', "outside": names}
    guarantees = accounted(mechanism, sampler, population, points(rounds), delta)
    summary |= {"rounds": [each.rounds for each in guarantees]}
    summary |= {f"epsilon_{name}": [finite_or_none(getattr(each, name)) for each in guarantees] for name in ("rdp", "pld")}
    return summary | {"sampling": guarantees[-1].sampling, "relation": guarantees[-1].relation, "outside": names}


def finite_or_none(epsilon: float | None) -> float | None:
    """Return `epsilon`, or None for an infinite epsilon, which bounds nothing."""
    return epsilon if epsilon is not None and np.isfinite(epsilon) else None


def delta_of(delta: float | None, population: int) -> float:
    """Return `delta`, or by default population^-1.1.

    >>> delta_of(None, 1000) == 1000**-1.1
    True
    """
    return max(population, 2) ** -1.1 if delta is None else delta


def points(rounds: int) -> Sequence[int]:
    """Return up to `POINTS` numbers of rounds at even distances, the last equal to `rounds`.

    >>> points(100), points(3)
    ([20, 40, 60, 80, 100], [1, 2, 3])
    """
    number = min(POINTS, rounds)
    return [max(1, round(rounds * (i + 1) / number)) for i in range(number)]


class BudgetTable(NamedTuple):
    """Epsilon by rounds."""

    noise_multiplier: float
    delta: float
    sampling: str
    relation: str
    rounds: list[int]
    epsilon_rdp: list[float | None]
    epsilon_pld: list[float | None]  # None where the accountant does not cover the mechanism

    def __str__(self) -> str:
        """A table for a person."""
        rows = [("rounds", "epsilon (RDP)", "epsilon (PLD)")]
        shown = lambda epsilon: "-" if epsilon is None else f"{epsilon:.4f}"  # noqa: E731
        rows += [(str(n), shown(rdp), shown(pld)) for n, rdp, pld in zip(self.rounds, self.epsilon_rdp, self.epsilon_pld, strict=True)]
        lines = ["  ".join(f"{cell:>{max(len(row[i]) for row in rows)}}" for i, cell in enumerate(row)) for row in rows]
        head = f"noise multiplier {self.noise_multiplier:.6g}, delta {self.delta:.3g}, {self.sampling}; for {self.relation}"
        return "\n".join([head, *lines])


def budget_table(
    algorithm: Algorithm, data: Any, params: Any, sampler: Sampler, *, rounds: int, delta: float | None = None, **others: Any
) -> BudgetTable:
    """Return epsilon by rounds, for `fl.run` with the same arguments."""
    del params, others
    found = accounted(algorithm.privacy, sampler, data.population, points(rounds), delta_of(delta, data.population))
    noise, last = covered(algorithm.privacy, sampler, data.population)[0].noise_multiplier, found[-1]
    by_rounds = [each.rounds for each in found], [each.rdp for each in found], [each.pld for each in found]
    return BudgetTable(float(noise), last.delta, last.sampling, last.relation, *by_rounds)
