"""A contender's curve with its spread over the seeds, over rounds, bytes or hours."""

from collections.abc import Callable, Sequence

import numpy as np

from fedjax_lite.comparison.entries import BITS, Curve, Entry
from fedjax_lite.comparison.groups import Contender
from fedjax_lite.metrics import HOURS
from fedjax_lite.report.axis import IN_HOURS, ROUND
from fedjax_lite.report.target import over_hours

__all__ = ["AGAINST", "MEGABYTES", "line_of"]

MEGABYTES = "megabytes sent"
AGAINST = {"rounds": ROUND, "bits": MEGABYTES, "hours": IN_HOURS}  # what a user asks for -> what the axis is called


def line_of(one: Contender, metric: str, across: str = ROUND) -> tuple[Curve, np.ndarray, np.ndarray] | None:
    """Return a contender's mean curve with its lowest and highest values; None where a run lacks the metric or the axis."""
    if metric not in one.metrics():
        return None
    curves = [PLACES[across](run, run.curves[metric]) for run in one.runs]
    there = [curve for curve in curves if curve is not None and len(curve.rounds)]
    if len(there) < len(curves):
        return None
    if across == ROUND or all(np.array_equal(curve.rounds, there[0].rounds) for curve in there):
        return _averaged(there)
    fewest = min(len(curve.rounds) for curve in there)
    places, values = (np.stack([getattr(curve, part)[:fewest] for curve in there]) for part in Curve._fields)
    grid, values = over_hours(values, places)
    return Curve(grid, values.mean(0)), values.min(0), values.max(0)


def _averaged(curves: Sequence[Curve]) -> tuple[Curve, np.ndarray, np.ndarray]:
    """Average curves at the rounds that all of them have; the curve, and its lowest and highest values `[points]`.

    >>> one, other = Curve(np.array([1, 3]), np.array([1.0, 2.0])), Curve(np.array([3, 5]), np.array([4.0, 5.0]))
    >>> [x.tolist() for x in (_averaged([one, other])[0].values, *_averaged([one, other])[1:])]
    [[3.0], [2.0], [4.0]]
    """
    common = sorted(set.intersection(*(set(curve.rounds.tolist()) for curve in curves)))
    values = np.stack([curve.values[np.isin(curve.rounds, common)] for curve in curves]) if common else np.zeros((len(curves), 0))
    return Curve(np.array(common), values.mean(0)), values.min(0), values.max(0)


def _over(entry: Entry, curve: Curve, name: str, divisor: float) -> Curve | None:
    """Return a curve over another one, where each of its rounds has that."""
    if name not in entry.curves:
        return None
    known = dict(zip(entry.curves[name].rounds.tolist(), entry.curves[name].values.tolist(), strict=True))
    places = [known.get(round) for round in curve.rounds.tolist()]
    return None if None in places else Curve(np.array(places, np.float64) / divisor, curve.values)


PLACES: dict[str, Callable[[Entry, Curve], Curve | None]] = {
    ROUND: lambda run, curve: curve,
    MEGABYTES: lambda run, curve: _over(run, curve, BITS, 8e6),
    IN_HOURS: lambda run, curve: _over(run, curve, HOURS, 1.0),
}
