"""One uplink on the field, without attackers: how good the model is, and the bits that it takes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.arena.field import SKEWS, Field, train
from fedjax_lite.engine.compute import compute
from fedjax_lite.engine.programs import programs_of
from fedjax_lite.refuse import one_line


class Traffic(NamedTuple):
    """What became of one uplink."""

    scores: np.ndarray  # [skews, seeds], NaN where the model or the run is lost
    bits: float  # of one client's message, in the mean over rounds
    broken: str = ""  # what went wrong


def traffic(field: Field, uplink: optax.GradientTransformation | None) -> Traffic:
    """Train with an uplink, the mean by examples as aggregator; an error of the uplink is told in `broken`."""
    shape = (len(SKEWS), field.seeds)
    try:
        found = _found(_experiment(field, uplink), shape[0] * shape[1])
    except Exception as error:
        return Traffic(np.full(shape, np.nan), np.nan, one_line(error))
    return Traffic(found["score"].reshape(shape), float(found["bits"].mean()))


def _experiment(field: Field, uplink: optax.GradientTransformation | None) -> Callable[..., dict]:
    """Make the function of a run's number, partition by partition."""
    return lambda seed: train(field, weighted_mean(), seed // field.seeds, seed % field.seeds, uplink=uplink)


def _found(experiment: Callable[..., dict], runs: int) -> dict[str, np.ndarray]:
    """Compute all runs in one program."""
    (found,) = compute(programs_of(experiment, [{"seed": i} for i in range(runs)], [""] * runs))
    return found
