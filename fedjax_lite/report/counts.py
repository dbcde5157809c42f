"""A figure of how many of something have each of a few whole numbers."""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from fedjax_lite.report.axis import vertical, whole_numbers
from fedjax_lite.report.chart import _place
from fedjax_lite.report.spread import Sample, _figure, filled_under
from fedjax_lite.report.strokes import STROKES

__all__ = ["counted_bars"]


def counted_bars(title: str, across: str, counts: Mapping[str, Sequence[int]], notes: Sequence[str] = ()) -> str:
    """Draw the share of each whole number, as an outline.

    Args:
        title: the caption, which names the vertical axis.
        across: what the whole numbers are.
        counts: name -> how many have the number 0, 1, ...; more than none each. Of more than there are strokes the first.
        notes: sentences below the figure.

    >>> counted_bars("clients in %", "rounds", {"this run": [1, 3]}).count("<figure>")
    1
    """
    known = {name: np.asarray(each, float) for name, each in islice(counts.items(), len(STROKES))}
    shares = {name: (100 * each / each.sum()).tolist() for name, each in known.items()}
    most = max(map(len, shares.values()))
    right = whole_numbers(most - 1)
    up = vertical([0, *(share for each in shares.values() for share in each)], [], False)
    samples, parts = [], []
    for stroke, (name, heights) in zip(STROKES, shares.items(), strict=False):
        samples.append(Sample(name, stroke, np.zeros(0)))
        corners = [(number + side, height) for number, height in enumerate(heights) for side in (-0.5, 0.5)]
        path = [_place(right, up, x, y) for x, y in [(-0.5, 0), *corners, (len(heights) - 0.5, 0)]]
        parts.append(stroke.line(f"M{' L'.join(path)}"))
        parts += [filled_under(path, stroke)] if len(known) == 1 else []
    padded = {name: [*map(int, each), *[0] * (most - len(each))] for name, each in counts.items() if name in known}
    return _figure(
        title,
        samples,
        (right, up),
        across,
        parts[::-1],
        notes,
        {across: range(most)} | {name or title: each for name, each in padded.items()},
    )
