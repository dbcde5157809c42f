"""Cut a text into windows, each with the token that follows on each of its own."""

from typing import Any

import numpy as np

from fedjax_lite.base import Whole
from fedjax_lite.data.text.vocabulary import PAD
from fedjax_lite.refuse import a_count

__all__ = ["windows"]


def windows(tokens: Any, length: Whole) -> dict[str, np.ndarray]:
    """Cut numbered tokens into windows that do not overlap; y is x a token later.

    x_ij = t_{iL + j},   y_ij = t_{iL + j + 1},   j = 0 .. L - 1; the last window is filled up with 0 after the text's end.

    Args:
        tokens: t, int `[tokens]`.
        length: L, the tokens of a window.

    Returns:
        "x" and "y", int32 `[windows, length]`; no windows of fewer than two tokens. Train with `supervised(model, ignore=0)`.

    >>> windows([2, 5, 6, 7, 3], length=3)["x"].tolist(), windows([2, 5, 6, 7, 3], length=3)["y"].tolist()
    ([[2, 5, 6], [7, 0, 0]], [[5, 6, 7], [3, 0, 0]])
    """
    length = a_count("windows", "length", length)
    tokens = np.asarray(tokens, np.int32)
    number = max(-(-(len(tokens) - 1) // length), 0)
    filled = np.full(number * length + 1, PAD, np.int32)
    filled[: len(tokens)] = tokens[: len(filled)]
    x = filled[:-1].reshape(number, length)
    y = filled[1:].reshape(number, length)
    return {"x": np.where(y == PAD, PAD, x), "y": y}
