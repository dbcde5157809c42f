"""PFLlib's folders: an .npz file a client and part, whose one array is an object that is read, and never run."""

import json
import os
from pathlib import Path

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.npy import read_npz
from fedjax_lite.data.formats.parts import part_of
from fedjax_lite.data.formats.reading import folder, reading, regular
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest


def pfllib(path: str | os.PathLike, *, partition: Partition | None = None, test: Number = 0.2, seed: Whole = 0) -> TrainTest:
    """A data set that PFLlib generated: path/train/K.npz and path/test/K.npz are the examples of client K.

    Args:
        path: folder with train/ and, if there is one, test/. Where config.json is beside them, its num_clients must be their number.
        partition: deals the training examples of all clients anew; None: the clients are the files.
        test, seed: the share that each client holds out where there is no test/, and the seed of that.

    Returns:
        TrainTest. Examples: "x" float32, images `[height, width, channels]` (on disk channels come first; the values are those on disk,
        for MNIST in [-1, 1]); "y" int32. Clients are called by their numbers and in that order.

    Raises:
        FileNotFoundError: no such folder, or no train/ in it.
        DataError: naming the file: damaged, an object of more than arrays, no x and y in it, a number of clients other than config.json's.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "train").mkdir()
    ...     for k in (0, 1):
    ...         np.savez_compressed(pathlib.Path(folder, "train", f"{k}.npz"), data={"x": np.ones((5, 3, 8, 8)), "y": np.arange(5)})
    ...     data = fl.data.pfllib(folder)
    >>> data.train.size.tolist(), data.test.size.tolist(), data.train.example["x"].shape
    ([4, 4], [1, 1], (8, 8, 3))

    Source: Zhang et al. 2025, "PFLlib: A Beginner-Friendly and Comprehensive Personalized Federated Learning Library and Benchmark".
    """
    path = folder(path, "train/ and test/")
    parts = [
        _part(folder(path / name, "one .npz file a client")) for name in ("train", "test") if name == "train" or (path / name).is_dir()
    ]
    _check_config(path / "config.json", len(parts[0].names))
    return arrange(*parts, partition=partition, share=test, seed=seed)


def _part(path: Path) -> Part:
    """Read all clients of a folder."""
    files = sorted(path.glob("*.npz"))
    if not files:
        raise DataError(f"{path} holds no *.npz files: expected one a client, such as 0.npz")
    return part_of({file.stem: _client(regular(file)) for file in files}, path)


def _client(file: Path) -> dict[str, np.ndarray]:
    """Read one client's x and y."""
    held = read_npz(file, ("data",)).get("data")
    table = held[0] if isinstance(held, list) and len(held) == 1 and isinstance(held[0], dict) else {}
    x, y = table.get("x"), table.get("y")
    if isinstance(y, list) and all(type(label) is int for label in y):
        with reading(file, OverflowError):
            y = np.array(y, np.int64)
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
        raise DataError(f'{file} holds no array "data" of one table with the arrays "x" and "y": it is no client of PFLlib')
    return {"x": x.transpose(0, 2, 3, 1) if x.ndim == 4 else x, "y": y}


def _check_config(file: Path, clients: int) -> None:
    """Refuse a folder with another number of clients than its config.json tells."""
    if not file.exists():
        return
    with reading(file, RecursionError):
        config = json.loads(regular(file).read_bytes())
    told = config.get("num_clients") if isinstance(config, dict) else None
    if type(told) is int and told != clients:
        raise DataError(f"{file} tells of {told} clients, train/ has {clients}: copy all of its files")
