"""A figure of how old the models were that uploads started from."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedjax_lite.report.counts import counted_bars

__all__ = ["ages_counted", "staleness_figure"]


def ages_counted(ids: np.ndarray, ages: np.ndarray) -> list[int]:
    """Count uploads by the age of the model that they started from.

    Args:
        ids: whole numbers of any shape; below 0: an empty slot.
        ages: of the same shape.

    >>> ages_counted(np.array([[3, 1], [2, -1]]), np.array([[0, 2], [2, 0]]))
    [1, 0, 2]
    """
    return np.bincount(ages[ids >= 0]).tolist()


def staleness_figure(counts: Mapping[str, Sequence[int]]) -> str:
    """Draw the share of uploads of each age, and write their means; "" where there are none.

    Args:
        counts: whose uploads -> how many are 0, 1, ... steps of the server old.
    """
    known = {name: each for name, each in counts.items() if sum(each)}
    if not known:
        return ""
    notes = []
    for name, each in known.items():
        whose = f"{name}: " if len(known) > 1 else ""
        notes.append(f"{whose}{sum(each):,} uploads, {np.asarray(each, float) @ np.arange(len(each)) / sum(each):.3g} old in the mean")
    return counted_bars("uploads in %", "steps of the server since the client's start", known, notes)
