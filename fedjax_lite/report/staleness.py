"""A figure of how old the models were that uploads started from."""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from fedjax_lite.report.axis import rounded, vertical
from fedjax_lite.report.chart import _place
from fedjax_lite.report.spread import Sample, _figure
from fedjax_lite.report.strokes import STROKES

__all__ = ["ages_counted", "staleness_section"]


def ages_counted(ids: np.ndarray, ages: np.ndarray) -> list[int]:
    """Count uploads by the age of the model that they started from.

    Args:
        ids: whole numbers of any shape; below 0: an empty slot.
        ages: of the same shape.

    >>> ages_counted(np.array([[3, 1], [2, -1]]), np.array([[0, 2], [2, 0]]))
    [1, 0, 2]
    """
    return np.bincount(ages[ids >= 0]).tolist()


def staleness_section(counts: Mapping[str, Sequence[int]]) -> str:
    """Draw the share of uploads of each age, and write their means; "" where there are none.

    Args:
        counts: whose uploads -> how many are 0, 1, ... steps of the server old.
    """
    known = {name: np.asarray(each, float) for name, each in islice(counts.items(), len(STROKES)) if sum(each)}
    if not known:
        return ""
    shares = {name: 100 * each / each.sum() for name, each in known.items()}
    most = max(map(len, shares.values()))
    right = rounded(-0.5, most - 0.5)
    right = right._replace(ticks=[tick for tick in right.ticks if tick == int(tick) and 0 <= tick < most])
    up = vertical([0, *(share for each in shares.values() for share in each)], [], False)
    samples, parts, notes = [], [], []
    for stroke, (name, heights) in zip(STROKES, shares.items(), strict=False):
        samples.append(Sample(name, stroke, np.zeros(0)))
        corners = [(age + side, height) for age, height in enumerate(heights.tolist()) for side in (-0.5, 0.5)]
        path = [_place(right, up, x, y) for x, y in [(-0.5, 0), *corners, (len(heights) - 0.5, 0)]]
        parts.append(stroke.line(f"M{' L'.join(path)}"))
        whose = f"{name}: " if len(shares) > 1 else ""
        notes.append(
            f"{whose}{known[name].sum():,.0f} uploads, {(known[name] @ np.arange(len(heights))) / known[name].sum():.3g} old in the mean"
        )
    figure = _figure("uploads in %", samples, (right, up), "steps of the server since the client's start", parts[::-1], notes)
    return f'<h2>Staleness</h2><div class="figures">{figure}</div>'
