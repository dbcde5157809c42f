"""Encoded pictures become arrays, by Pillow."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.extra import extra
from fedjax_lite.data.formats.reading import within
from fedjax_lite.refuse import is_count

__all__ = ["check_size", "decoded"]

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # none that runs a program
_MOST_PIXELS = 2**26
_EXPANDS, _AT_LEAST = 1000, 2**20  # a picture may grow to so many times its file's size, or to so many bytes: blank pages do
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def check_size(size: Any) -> tuple[int, int] | None:
    """Return height and width.

    Raises:
        ValueError: for what is neither one whole number nor two.
    """
    if size is None:
        return None
    both = (size, size) if is_count(size, least=1) else tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else ()
    if len(both) != 2 or not all(is_count(each, least=1) for each in both):
        raise ValueError(f"size must be a whole number, or height and width, got {size!r}")
    return int(both[0]), int(both[1])


def decoded(files: Iterable[tuple[str, Callable[[], bytes]]], number: int, size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    """Decode pictures, each of a name and a function that reads it, as float32 `[number, height, width, channels]` in [0, 1].

    Raises:
        ImportError: without Pillow.
        DataError: naming the picture: damaged, too large, or of another size than the first.
    """
    pillow = extra("PIL.Image", "Pillow", "images")
    pixels: Any = None
    first = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of remarks on metadata
        for i, (name, read) in enumerate(files):
            try:
                picture = _array(pillow, name, read(), size, grey)
            except DataError:
                raise
            except (*_DAMAGE, pillow.DecompressionBombError) as error:
                raise DataError(f"{name} cannot be read as an image ({error}): it is damaged, copy it again") from None
            if pixels is None:
                pixels, first = np.empty((number, *picture.shape), np.uint8), name
            if picture.shape != pixels.shape[1:]:
                sizes = " and ".join(f"{height} x {width}" for height, width, _ in (picture.shape, pixels.shape[1:]))
                raise DataError(f"{name} and {first} are {sizes} pixels: give size=, to which all are scaled")
            pixels[i] = picture
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def _array(image: Any, name: str, data: bytes, size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    """Decode one picture as uint8 `[height, width, channels]`; `image` is Pillow's module."""
    with image.open(io.BytesIO(data), formats=_FORMATS) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise DataError(f"{name} is {picture.height} x {picture.width} pixels: scale it down")
        within(max(_AT_LEAST, _EXPANDS * len(data)), 3 * picture.width * picture.height, name)
        if picture.mode[0] in "IF":
            raise DataError(f"{name} has more than 8 bits a channel (mode {picture.mode}): save it with 8")
        mode = "L" if grey else "RGB"
        plain = picture if picture.mode == mode else picture.convert(mode)
        if size is not None and plain.size != size[::-1]:
            plain = plain.resize(size[::-1], image.Resampling.BILINEAR)
        array = np.asarray(plain)
    return array.reshape(*array.shape[:2], -1)
