"""How long runs take to a target, and curves over virtual hours, of which each run has its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["OF_HOURS", "OF_ROUNDS", "over_hours", "to_target"]

OF_ROUNDS = ("rounds_to_target", "rounds_low", "rounds_high")  # columns of a table with a target
OF_HOURS = ("hours_to_target", "hours_low", "hours_high")  # and more of them where runs have a virtual clock


def to_target(row: Mapping[str, Any], what: str = "rounds") -> str:
    """Write a row's rounds, or hours, to a target: the mean over seeds, with its interval where there is more than one seed.

    >>> to_target({"rounds_to_target": 14 / 3, "rounds_low": 1.8, "rounds_high": 7.5333})
    '4.7 (1.8 to 7.5)'
    """
    mean, low, high = (row[f"{what}_{end}"] for end in ("to_target", "low", "high"))
    if mean is None:
        return "-"
    form = ".1f" if what == "rounds" else ".3g"
    return f"{mean:{form}}" + ("" if low is None else f" ({low:{form}} to {high:{form}})")


def over_hours(curves: np.ndarray, hours: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return equally spaced hours at which all curves are known, and each curve's value at them: that of its last point before.

    Args:
        curves, hours: `[seeds, points]`; the model of a point is current from its hour on.

    Returns:
        Hours `[points]`, from the last curve's first point to the first curve's last, and values `[seeds, points]`.

    >>> grid, values = over_hours(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 5.0]]), points=4)
    >>> grid.tolist(), values.tolist()
    ([1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 2.0, 3.0], [4.0, 4.0, 5.0, 5.0]])
    """
    grid = np.linspace(hours[:, 0].max(), max(hours[:, 0].max(), hours[:, -1].min()), points)
    last = [np.searchsorted(each, grid, side="right") - 1 for each in hours]
    return grid, np.stack([curve[place] for curve, place in zip(curves, last, strict=True)])
