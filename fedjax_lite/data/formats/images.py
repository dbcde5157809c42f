"""Images in folders or a zip: the folders say the class, and perhaps the client and the part."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.pictures import check_size, decoded
from fedjax_lite.data.formats.zipped import members
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest

__all__ = ["images"]

_ENDS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val", "validation": "val"}
_LAYOUTS = {"class": 1, "client/class": 2}


class File(NamedTuple):
    """An image that was found, and not yet read."""

    folders: tuple[str, ...]  # those in which it lies, from the outermost
    name: str  # for errors
    read: Callable[[], bytes]


def images(
    path: str | os.PathLike,
    *,
    size: int | Sequence[int] | None = None,
    grey: bool = False,
    layout: str | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """Images by class, or by client and class, in a folder or a zip.

    The folders above an image are `class`, or `client/class`, told apart by their depth. Folders train and test (or val, which is left
    out where there is a test) above those, or between client and class, are the parts. A folder that all images share is passed over.

    Args:
        path: the folder, or a .zip file.
        size: height and width of x, one number for both; images of other sizes are scaled. None: all have one size.
        grey: give one channel in the place of red, green and blue.
        layout: "class" or "client/class", to force one; further folders below do not count.
        partition: deals the training images to clients; needed where no folder is a client's.
        test: share of its images that each client holds out where there is no test part, in [0, 1).
        seed: of the partition, and of what is held out.

    Returns:
        TrainTest. Examples: "x" float32 `[height, width, channels]` in [0, 1], "y" int32; `words` are the classes, sorted as text.

    Raises:
        ImportError: Pillow is not installed: the extra `images`.
        FileNotFoundError: no such folder or file.
        DataError: naming the image: damaged, of another size, in folders of another depth; in a zip also links, names that lead out of it,
            and images that unpack to far more than they are.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, grey in (("ann/dark/1.pgm", 0), ("ann/light/2.pgm", 255), ("bob/light/3.pgm", 204)):
    ...         pathlib.Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
    ...         _ = pathlib.Path(folder, name).write_bytes(b"P5 2 1 255 " + bytes([grey, grey]))
    ...     data = fl.data.images(folder, grey=True, test=0)
    >>> data.names, data.words, data.train.examples["x"].shape, data.train.examples["y"].tolist()
    (Names(2 clients: ann, bob), ('dark', 'light'), (3, 1, 2, 1), [0, 1, 1])
    """
    size = check_size(size)
    if layout not in (None, *_LAYOUTS):
        raise ValueError(f"layout must be one of {', '.join(map(repr, _LAYOUTS))}, got {layout!r}")
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} is not there: give a folder of images, or a zip")
    found = [file for file in (_in_folder(path) if path.is_dir() else _in_zip(path)) if file.name.lower().endswith(_ENDS)]
    if not found:
        raise DataError(f"{path} holds no images ({', '.join(_ENDS)})")
    parts = _by_part(found, 1 if layout is None else _LAYOUTS[layout])
    depth = _depth(path, [file for part in parts for file in part], layout)
    words = sorted({file.folders[depth - 1] for part in parts for file in part})
    made = [_part(part, depth, words, size, grey) for part in parts]
    if len({part.examples["x"].shape[1:] for part in made}) > 1:
        shapes = " and ".join(str(list(part.examples["x"].shape[1:])) for part in made)
        raise DataError(f"{path}: images of the parts have the shapes {shapes}: give size=")
    return arrange(*made, partition=partition, share=test, seed=seed, words=words)


def _in_folder(path: Path) -> Iterator[File]:
    """Yield the files below a folder, in their order by name; hidden ones are passed over."""
    for folder, inside, files in os.walk(path):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
                raise DataError(f"{file} is a link out of {path}: copy the image")
            if not name.startswith("."):
                yield File(file.relative_to(path).parts[:-1], str(file), file.read_bytes)


def _in_zip(path: Path) -> Iterator[File]:
    """Yield the files in a zip, in their order by name."""
    for name, read in members(path):
        *folders, last = name.split("/")
        if not last.startswith(".") and "__MACOSX" not in folders:
            yield File(tuple(folders), f"{path}: {name}", read)


def _by_part(files: list[File], depth: int) -> list[list[File]]:
    """Return the images of each part, train before test, without the folder of the part, and without those that all share above `depth`."""
    while all(len(file.folders) > depth for file in files) and len({file.folders[0] for file in files}) == 1:
        files = [file._replace(folders=file.folders[1:]) for file in files]
    for at in (0, 1):
        kinds = [_PARTS.get(file.folders[at].lower()) if len(file.folders) > at else None for file in files]
        if None not in kinds and "train" in kinds and len(set(kinds)) > 1:
            held = "test" if "test" in kinds else "val"
            without = [file._replace(folders=file.folders[:at] + file.folders[at + 1 :]) for file in files]
            return [[file for file, kind in zip(without, kinds, strict=True) if kind == which] for which in ("train", held)]
    return [files]


def _depth(path: Path, files: list[File], layout: str | None) -> int:
    """Return how many folders above an image count: 1 for its class, 2 for client and class."""
    depth = len(files[0].folders) if layout is None else _LAYOUTS[layout]
    if depth not in _LAYOUTS.values():
        raise DataError(
            f"{files[0].name} lies {depth} folders deep in {path}, expected class or client/class: give layout= or a folder below"
        )
    for file in files:
        if len(file.folders) < depth or (layout is None and len(file.folders) != depth):
            raise DataError(f"{file.name} lies {len(file.folders)} folders deep and {files[0].name} {depth}: move it, or give layout=")
    return depth


def _part(files: list[File], depth: int, words: list[str], size: tuple[int, int] | None, grey: bool) -> Part:
    """Read the images of a part."""
    x = decoded(((file.name, file.read) for file in files), len(files), size, grey)
    place = {word: i for i, word in enumerate(words)}
    examples = {"x": x, "y": np.array([place[file.folders[depth - 1]] for file in files], np.int32)}
    if depth == 1:
        return Part(examples)
    names, client = np.unique([file.folders[0] for file in files], return_inverse=True)
    return Part(examples, client, names.tolist())
