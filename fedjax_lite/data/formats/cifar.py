"""CIFAR-10 and CIFAR-100 as they are downloaded: binary files, or pickles, which are read and never run."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.parts import central, pixels
from fedjax_lite.data.formats.reading import folder, reading, regular
from fedjax_lite.data.formats.unpickle import unpickle
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest

_SIDE, _PIXELS = 32, 3072
_FOLDERS = (".", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")


class _Layout(NamedTuple):
    """One of the four forms that the two data sets have."""

    train: tuple[str, ...]
    test: str
    kinds: tuple[str, ...]  # of labels, in the order of a row's first bytes
    names: tuple[str, ...]  # the file or files of class names, one a kind where they are text
    binary: bool


_TEN = tuple(f"data_batch_{i}" for i in range(1, 6))
_LAYOUTS = (
    _Layout(_TEN, "test_batch", ("",), ("batches.meta",), False),
    _Layout(tuple(f"{name}.bin" for name in _TEN), "test_batch.bin", ("",), ("batches.meta.txt",), True),
    _Layout(("train",), "test", ("coarse", "fine"), ("meta", "meta"), False),
    _Layout(("train.bin",), "test.bin", ("coarse", "fine"), ("coarse_label_names.txt", "fine_label_names.txt"), True),
)
_CLASSES = {"": 10, "coarse": 20, "fine": 100}


def cifar(
    path: str | os.PathLike,
    *,
    labels: str = "fine",
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """CIFAR-10 or CIFAR-100, its training images dealt to clients and its test images one central set.

    Args:
        path: the folder with data_batch_1 to data_batch_5 and test_batch, or train and test (CIFAR-100): pickles ("python version"), or
            .bin files ("binary version"); or the folder around it.
        labels: of CIFAR-100 "fine", 100 classes, or "coarse", 20.
        partition: deals the training images to clients, for instance `fl.partition.dirichlet(clients=100, alpha=0.3)`.
        test, seed: the share that each client holds out where there are no test images; the seed of both.

    Returns:
        TrainTest. Examples: "x" float32 `[32, 32, 3]` in [0, 1], "y" int32. `words` are the class names, where their file is there.

    Raises:
        FileNotFoundError: no such folder, or none of these files in it.
        ValueError: no partition, or other labels than these two.
        DataError: naming the file: cut off, damaged, a batch that is missing, labels out of range, a pickle of more than arrays.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train.bin", "test.bin"):
    ...         _ = pathlib.Path(folder, name).write_bytes((bytes([4, 30]) + bytes(3072)) * 2)
    ...     data = fl.data.cifar(folder, labels="coarse", partition=fl.partition.iid(clients=2))
    >>> data.train.examples["x"].shape, data.train.examples["y"].tolist(), data.test.population
    ((2, 32, 32, 3), [4, 4], 1)

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """
    if labels not in ("fine", "coarse"):
        raise ValueError(f'cifar: labels must be "fine" or "coarse", got {labels!r}')
    path, layout = _find(folder(path, "CIFAR's batches"))
    kind = labels if len(layout.kinds) > 1 else ""
    read = _binary if layout.binary else _pickled
    words = _class_names(path, layout, kind)
    held = [path / layout.test] if (path / layout.test).is_file() else []

    def part(files: list[Path]) -> Part:
        x, y = (np.concatenate(each) for each in zip(*[read(regular(file), layout, kind) for file in files], strict=True))
        images = pixels(x.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        return central({"x": images, "y": y}, files[0] if len(files) == 1 else path)

    parts = [part(files) for files in ([path / name for name in layout.train], held) if files]
    return arrange(*parts, partition=partition, share=test, seed=seed, words=words)


def _find(path: Path) -> tuple[Path, _Layout]:
    """Return the folder that holds a data set, and its layout."""
    found = [(path / name, layout) for name in _FOLDERS for layout in _LAYOUTS if (path / name / layout.train[0]).is_file()]
    if not found:
        raise FileNotFoundError(f"{path} holds no CIFAR: expected data_batch_1 or data_batch_1.bin, or CIFAR-100's train or train.bin")
    if len(found) > 1:
        here = ", ".join(str(where / layout.train[0]) for where, layout in found)
        raise DataError(f"{path} holds more than one data set ({here}): keep one a folder")
    ((where, layout),) = found
    if missing := [name for name in layout.train if not (where / name).is_file()]:
        raise DataError(f"{where} lacks {', '.join(missing)}: copy the whole data set")
    return where, layout


def _binary(file: Path, layout: _Layout, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Read rows of labels and pixels: uint8 `[images, 3072]` and the labels of one kind."""
    before = len(layout.kinds)
    data = np.fromfile(file, np.uint8)
    if len(data) % (before + _PIXELS):
        raise DataError(f"{file} has {len(data)} bytes, which are no whole rows of {before + _PIXELS}: it is cut off, copy it again")
    rows = data.reshape(-1, before + _PIXELS)
    return rows[:, before:], _in_range(rows[:, layout.kinds.index(kind)], kind, file)


def _pickled(file: Path, layout: _Layout, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a pickled batch: uint8 `[images, 3072]` and the labels of one kind."""
    batch = _table(file)
    name = f"{kind}_labels" if kind else "labels"
    x, y = batch.get("data"), batch.get(name)
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[1:] != (_PIXELS,):
        raise DataError(f'{file}: "data" is no array of bytes [images, {_PIXELS}]: it is no batch of CIFAR')
    if not isinstance(y, list) or not all(type(label) is int for label in y) or len(y) != len(x):
        raise DataError(f'{file}: "{name}" is no list of {len(x)} whole numbers: it is no batch of CIFAR{"-100" * bool(kind)}')
    with reading(file, OverflowError):
        return x, _in_range(np.array(y, np.int64), kind, file)


def _in_range(y: np.ndarray, kind: str, file: Path) -> np.ndarray:
    """Return labels; refuse one that is no class."""
    if (bad := (y < 0) | (y >= _CLASSES[kind])).any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{file}: the label {int(y[row])} of image {row} is no class from 0 to {_CLASSES[kind] - 1}: it is damaged")
    return y


def _class_names(path: Path, layout: _Layout, kind: str) -> tuple[str, ...] | None:
    """Read the class names; None where their file is missing."""
    names: Any
    file = path / layout.names[layout.kinds.index(kind)]
    if not file.exists():
        return None
    if layout.binary:
        with reading(file):
            names = regular(file).read_text("utf-8").split()
    else:
        names = _table(regular(file)).get(f"{kind}_label_names" if kind else "label_names")
    if not isinstance(names, list) or len(names) != _CLASSES[kind]:
        raise DataError(f"{file} does not list {_CLASSES[kind]} class names: it is damaged")
    return tuple(_text(name, file) for name in names)


def _table(file: Path) -> dict[str, Any]:
    """Return the dict that a pickle holds, its keys as text."""
    held = unpickle(file.read_bytes(), file)
    if not isinstance(held, dict):
        raise DataError(f"{file} holds a {type(held).__name__}, not a table: it is no file of CIFAR")
    return {_text(key, file): value for key, value in held.items()}


def _text(name: Any, file: Path) -> str:
    """Return a name as text, in Python 2's pickles or in others."""
    if not isinstance(name, str | bytes):
        raise DataError(f"{file} holds {name!r} in the place of a name: it is no file of CIFAR")
    return name if isinstance(name, str) else name.decode("latin1")
