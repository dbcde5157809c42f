"""How a leaf lies in memory here and in PyTorch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Layout", "back", "turned", "turned_shape"]


class Layout(NamedTuple):
    """The layout of a leaf: "same"; "kernel" [..., in, out] here, [out, in, ...] there; "flattened", a kernel whose inputs are pixels, here
    [pixels * channels, out], there [out, channels * pixels]; "two", a bias here, two that are added there."""

    kind: str
    channels: int  # of what is flattened


def turned(layout: Layout, x: np.ndarray) -> list[np.ndarray]:
    """Return a leaf as PyTorch has it, in fresh memory.

    >>> [y.tolist() for y in turned(Layout("kernel", 0), np.array([[1, 2, 3], [4, 5, 6]]))]
    [[[1, 4], [2, 5], [3, 6]]]
    """
    if layout.kind == "two":
        return [np.array(x), np.zeros_like(x)]
    if layout.kind == "same":
        return [np.array(x)]
    if layout.kind == "flattened":
        x = x.reshape(-1, layout.channels, x.shape[-1]).transpose(1, 0, 2).reshape(x.shape)
    return [np.array(x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)), order="C")]


def turned_shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a leaf in PyTorch."""
    return shape if layout.kind in ("same", "two") else (shape[-1], shape[-2], *shape[:-2])


def back(layout: Layout, parts: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Return a leaf of this shape from what PyTorch has.

    >>> x = np.arange(24.0).reshape(6, 4)
    >>> bool((back(Layout("flattened", 2), turned(Layout("flattened", 2), x), x.shape) == x).all())
    True
    """
    if layout.kind == "two":
        return parts[0] + parts[1]
    [x] = parts
    if layout.kind == "same":
        return x
    x = x.transpose(*range(2, x.ndim), 1, 0)
    return x if layout.kind == "kernel" else x.reshape(layout.channels, -1, shape[-1]).transpose(1, 0, 2).reshape(shape)
