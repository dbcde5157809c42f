"""Data sets in one .npz file, as Keras keeps them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.npy import read_npz
from fedjax_lite.data.formats.parts import central, pixels
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest


def npz(path: str | os.PathLike, *, partition: Partition | None = None, test: Number = 0.2, seed: Whole = 0) -> TrainTest:
    """One .npz file with x_train, y_train and perhaps x_test, y_test (Keras), or x and y; training examples dealt to clients.

    Args:
        path: the file.
        partition: deals the training examples to clients, for instance `fl.partition.iid(clients=10)`.
        test, seed: the share that each client holds out where there is no x_test; the seed of both. x_test is one central set.

    Returns:
        TrainTest. Examples: "x", of bytes float32 in [0, 1], with a last axis of 1 for images without channels `[height, width]`; of
        other numbers as they are, in float32 or int32. "y" int32 or float32, one a row where the file has `[examples, 1]`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no partition.
        DataError: naming the file and the array: damaged, neither of these names, objects in the place of numbers, unequal lengths, NaN.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(pathlib.Path(folder, "data.npz"), x=np.eye(4), y=np.arange(4))
    ...     data = fl.data.npz(pathlib.Path(folder, "data.npz"), partition=fl.partition.iid(clients=2), test=0)
    >>> data.train.size.tolist(), data.train.example["x"].shape
    ([2, 2], (4,))
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"path={str(file)!r} is not there: give an .npz file")
    arrays = read_npz(file, ("x_train", "y_train", "x_test", "y_test", "x", "y"))
    names = [pair for pair in (("x_train", "y_train"), ("x", "y")) if pair[0] in arrays or pair[1] in arrays]
    if len(names) != 1:
        raise DataError(f"{file} holds {', '.join(arrays) or 'none of these arrays'}: expected x_train and y_train, or x and y")
    held = [("x_test", "y_test")] if "x_test" in arrays or "y_test" in arrays else []
    return arrange(*[_part(arrays, *pair, file) for pair in names + held], partition=partition, share=test, seed=seed)


def _part(arrays: dict[str, Any], x_name: str, y_name: str, file: Path) -> Part:
    """Make a part of two of the file's arrays."""
    for name in (x_name, y_name):
        if not isinstance(arrays.get(name), np.ndarray):
            raise DataError(f"{file} {'holds objects as' if name in arrays else 'has no'} {name}: write arrays of numbers with np.savez")
    x, y = arrays[x_name], arrays[y_name]
    images = x[..., None] if x.dtype == np.uint8 and x.ndim == 3 else x
    return central({"x": pixels(images), "y": y[:, 0] if y.shape[1:] == (1,) else y}, file)
