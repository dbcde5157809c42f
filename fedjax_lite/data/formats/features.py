"""Which features of a federated data set become x and y, and how: pixels, bytes of images, snippets of text."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.parts import pixels
from fedjax_lite.data.formats.snippets import windows

_KNOWN = ({"x": "pixels", "y": "label"}, {"x": "image", "y": "label"}, {"x": "x", "y": "y"}, {"x": "snippets"})
_SHAPES = {"pixels": (28, 28, 1), "image": (32, 32, 3)}  # of TFF's EMNIST and CIFAR-100


def chosen(features: Mapping[str, str] | None, there: Iterable[str], where: Any) -> dict[str, str]:
    """Return the feature of each leaf: those asked for, or those of a data set that is known by the names that are `there`."""
    there = sorted(there)
    if features is not None:
        if missing := [name for name in features.values() if name not in there]:
            raise DataError(f"{where} has no feature {missing[0]!r}, it has {', '.join(there)}: name others in features=")
        return dict(features)
    for known in _KNOWN:
        if set(known.values()) <= set(there):
            return known
    raise DataError(f'{where} has the features {", ".join(there)}: say which are which, as features={{"x": "pixels", "y": "label"}}')


def leaves(held: Mapping[str, Any], asked: Mapping[str, str], length: int, invert: bool, where: str) -> dict[str, np.ndarray]:
    """Return a client's examples: arrays by leaf; a feature that is a list of bytes becomes windows of characters, x and y."""
    for name in asked.values():
        if name not in held:
            raise DataError(f"{where} has no feature {name!r}, which others have")
    texts = [name for name in asked.values() if isinstance(held[name], list)]
    if texts and len(asked) > 1:
        raise DataError(f'{where}: the feature {texts[0]!r} is text, which becomes x and y both: write features={{"x": {texts[0]!r}}}')
    if texts:
        return windows(held[texts[0]], length)
    return {leaf: _numbers(name, held[name], invert and leaf == "x", where) for leaf, name in asked.items()}


def _numbers(name: str, array: np.ndarray, invert: bool, where: str) -> np.ndarray:
    """Return a feature's numbers: images with channels and in [0, 1], other numbers as they are."""
    shape = _SHAPES.get(name)
    if shape is not None and array.shape[1:] != shape:
        if array.shape[1:] not in (shape[:-1], (int(np.prod(shape)),)):
            raise DataError(f"{where}: {name} has the shape {list(array.shape[1:])} an example, expected {list(shape)}")
        array = array.reshape(len(array), *shape)
    if name == "image" and array.dtype.kind in "iu":
        if array.size and not 0 <= array.min() <= array.max() <= 255:
            raise DataError(f"{where}: {name} goes from {array.min()} to {array.max()}: it is no image of bytes")
        array = array.astype(np.uint8)
    return 1 - pixels(array) if invert else pixels(array)
