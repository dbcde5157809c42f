"""Read one image of a folder of images."""

from pathlib import Path

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.extra import extra
from fedjax_lite.data.formats.reading import reading, regular, room, within


def read_image(images: Path, name: str, size: int | None) -> np.ndarray:
    """Read the JPEG or PNG `name` in the folder as float32 `[height, width, 3]` in [0, 1], resized to a square of `size` if given."""
    file = images / name
    if not file.resolve().is_relative_to(images.resolve()):
        raise DataError(f"the image {name!r} is not in {images}: name files of that folder alone")
    if not file.exists():
        raise DataError(f"{images} has no image {name!r}: give the folder that holds it as images=")
    pillow = extra("PIL.Image", "Pillow", "images")
    with reading(file, OSError, SyntaxError, pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        with pillow.open(regular(file), formats=("JPEG", "PNG")) as image:
            within(room(file), 12 * image.width * image.height, "an image")
            square = image.convert("RGB") if size is None else image.convert("RGB").resize((size, size), pillow.Resampling.BICUBIC)
            return np.asarray(square, np.float32) / 255
