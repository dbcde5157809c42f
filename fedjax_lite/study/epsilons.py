"""Epsilon of each cell of a private study, added to its results."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from fedjax_lite.base import Mechanism
from fedjax_lite.metrics import inside_guarantee
from fedjax_lite.privacy.accountant import accounted, covered
from fedjax_lite.privacy.budget import finite_or_none
from fedjax_lite.sampling.participation import Sampler
from fedjax_lite.study.results import Study

Private = tuple[Mechanism | None, Sampler, int, float]  # mechanism, sampler, number of clients, delta
NAMES = ("epsilon_rdp", "epsilon_pld")  # results by the two accountants


def with_epsilons(study: Study, private_of: Sequence[Callable[[], Private]], rounds: int, central: bool) -> Study:
    """Return `study` with each cell's epsilon by two accountants as results, and a note that names metrics outside the guarantee.

    A cell without a mechanism lacks these results.

    Args:
        private_of: for each cell, a function that returns its mechanism, sampler, number of clients and delta.
        rounds: rounds of each run.
        central: True if no client holds the test examples.
    """
    deltas: list[str] = []
    outside = [name for name in study.results if not inside_guarantee(name, central)]
    notes = {"privacy": {"outside the guarantee": ", ".join(outside)}}
    if find_spec("dp_accounting") is None:
        notes["privacy"]["epsilon"] = 'not accounted for: pip install "fedjax_lite[privacy]"'
        return study._replace(made=study.made | notes)
    known: dict[Any, tuple[float | None, float | None]] = {}
    cells: list[tuple[float | None, float | None]] = []
    for of in private_of:
        mechanism, sampler, population, delta = of()
        if mechanism is None:
            cells.append((None, None))
            continue
        key = (*covered(mechanism, sampler, population), population, delta)
        if key not in known:
            (epsilon,) = accounted(mechanism, sampler, population, [rounds], delta)
            known[key] = finite_or_none(epsilon.rdp), finite_or_none(epsilon.pld)
        cells.append(known[key])
        deltas.append(f"{delta:.3g}")
    notes["privacy"]["delta"] = ", ".join(dict.fromkeys(deltas))
    shape = next(iter(study.results.values())).shape[: len(study.axes) + 1]
    results, lacking = dict(study.results), dict(study.lacking)
    for name, values in zip(NAMES, zip(*cells, strict=True), strict=True):
        if any(value is not None for value in values):
            each = np.array([np.nan if value is None else value for value in values])
            results[name] = np.broadcast_to(each.reshape(shape[:-1])[..., None], shape).copy()
            if without := tuple(place for place, value in enumerate(values) if value is None):
                lacking[name] = without
    return study._replace(results=results, lacking=lacking, made=study.made | notes)
