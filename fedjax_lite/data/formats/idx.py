"""Read the idx files of MNIST, Fashion-MNIST, Kuzushiji-MNIST and EMNIST as they are downloaded."""

import math
import os
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.parts import central
from fedjax_lite.data.formats.reading import folder, room, unpacked, within
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}  # by the header's type byte
_ROOTS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST")  # torchvision's folders
_MOST_AXES, _AT_ONCE = 32, 2**24  # axes of an array; bytes read at a time, so that a false header takes no memory


def mnist(
    path: str | os.PathLike,
    *,
    partition: Partition | None = None,
    seed: Whole = 0,
    test: Number = 1 / 6,
    flat: bool = False,
    upright: bool | None = None,
) -> TrainTest:
    """Images and labels from a folder of idx files, dealt to clients.

    With train and t10k files, train is dealt to the clients and t10k is one central test set (population 1). With one complete
    pair of images and labels, that pair is dealt, and every client holds some of its examples out; a single file of the other pair is
    ignored with a warning.

    Args:
        path: folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same for t10k (EMNIST: `emnist-<set>-train-...`
            and `...-test-...`, one set a folder); with a dot for the second dash or not, .gz or not. Or torchvision's root around
            it, which holds one of MNIST/raw, FashionMNIST/raw, KMNIST/raw, QMNIST/raw, EMNIST/raw.
        partition: deals examples to clients, for instance `fl.partition.shards(clients=100)`: a function of (rng, labels).
        seed: `default_rng(seed)` draws the partition and then, if clients hold out, one permutation a client.
        test: share of its examples that each client holds out, in [0, 1); not used where there is a t10k pair beside train.
        flat: give x as `[pixels]`.
        upright: swap the axes of the images. EMNIST's files hold them lying on their side; None: swap those of files whose names begin
            with emnist-.

    Returns:
        TrainTest. Examples: "x" float32 `[height, width, 1]` in [0, 1], "y" int32.

    Raises:
        FileNotFoundError: no such folder, or no complete pair in it.
        ValueError: no partition.
        DataError: a damaged or empty file, images and labels of unequal number, two sets in one folder.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 255]))
    ...     _ = pathlib.Path(folder, "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
    ...     data = fl.data.mnist(folder, partition=fl.partition.iid(clients=2), test=0)
    >>> data.train.population, sorted(data.train.examples["y"].tolist()), data.train.examples["x"].shape
    (2, [5, 7], (2, 1, 1, 1))

    Source: LeCun, Cortes, Burges 1998, "The MNIST database of handwritten digits".
    """
    path = _raw(folder(path, "the idx files"))
    splits = [_files(path, split) for split in ("train", "(?:t10k|test)")]
    whole = [None not in pair for pair in splits]
    alone = [file.name for pair, both in zip(splits, whole, strict=True) if not both for file in pair if file is not None]
    if not any(whole):
        there = f" ({', '.join(alone)} without the other of its pair)" if alone else ""
        raise FileNotFoundError(
            f"{path} holds no images with their labels{there}: expected for instance train-images-idx3-ubyte and train-labels-idx1-ubyte"
        )
    pair = splits[0] if whole[0] else splits[1]
    if alone:
        used = " and ".join(file.name for file in pair if file is not None)
        warnings.warn(f"{path}: {', '.join(alone)} stands alone and is not read; {used} are dealt to the clients", stacklevel=2)
    parts = [_pair(each, flat, upright) for each in (splits if all(whole) else [pair])]
    return arrange(*parts, partition=partition, share=test, seed=seed)


def read_idx(file: str | os.PathLike) -> np.ndarray:
    """Read one idx file, plain or gzip (recognised by its content), as an array.

    Args:
        file: 2 zero bytes, a type, the number of axes, big-endian uint32 lengths, then big-endian values in C order.

    Returns:
        uint8, int8, int16, int32, float32 or float64, in the machine's byte order.

    Raises:
        DataError: naming the file: not idx, or shorter or longer than its header says, or packed beyond reason.

    Source: LeCun, Cortes, Burges 1998, "The MNIST database of handwritten digits", section "File formats".
    """
    with unpacked(file) as (stream, _):
        return _read(file, stream)


def _read(file: str | os.PathLike, stream: Any) -> np.ndarray:
    """Read an array from `stream`, at most one byte more than its header says. A packed file may expand without bound."""
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= _MOST_AXES:
        raise DataError(
            f"{file} is not an idx file: it starts with {head.hex(' ') or 'nothing'}, expected 00 00, a type and a number of axes"
        )
    lengths = stream.read(4 * head[3])
    if len(lengths) < 4 * head[3]:
        raise DataError(f"{file} ends within its header of {head[3]} axes: it is cut off, copy it again")
    shape, dtype = struct.unpack(f">{head[3]}I", lengths), np.dtype(_TYPES[head[2]])
    expected = within(room(Path(file)), math.prod(shape) * dtype.itemsize, str(file))
    values = bytearray()
    while len(values) <= expected and (more := stream.read(min(_AT_ONCE, expected + 1 - len(values)))):
        values += more
    if len(values) != expected:
        start = len(head) + len(lengths)
        found = f"{start + len(values)}" if len(values) < expected else f"more than {start + expected}"
        raise DataError(
            f"{file} has {found} bytes, its header ({dtype.name}, {list(shape)}) says {start + expected}: "
            "it is cut off or damaged, copy it again"
        )
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _raw(path: Path) -> Path:
    """Return the folder with the files, where `path` is torchvision's root around it."""
    inside = [path / name / "raw" for name in _ROOTS if (path / name / "raw").is_dir()]
    if len(inside) > 1:
        raise DataError(f"{path} holds more than one data set ({', '.join(str(each) for each in inside)}): give one of these folders")
    return inside[0] if inside else path


def _files(path: Path, split: str) -> tuple[Path | None, Path | None]:
    """Find the files of images and of labels of one split; None for a missing file."""
    return _find(path, f"{split}-images"), _find(path, f"{split}-labels")


def _pair(files: tuple[Path | None, Path | None], flat: bool, upright: bool | None) -> Part:
    """Read and check images and labels of one split: "x" float32 in [0, 1], "y" int32."""
    images, labels = files
    assert images and labels
    x, y = read_idx(images), read_idx(labels)
    if y.ndim != 1 or x.ndim != 3 or len(x) != len(y):
        raise DataError(f"{images} has the shape {list(x.shape)} and {labels} {list(y.shape)}: they are not images and their labels")
    if not len(x):
        raise DataError(f"{images} and {labels} hold no examples")
    if upright or upright is None and images.name.startswith("emnist-"):
        x = x.transpose(0, 2, 1)
    x = x.astype(np.float32) / 255
    return central({"x": x.reshape(len(x), -1) if flat else x[..., None], "y": y}, f"{images} and {labels}")


def _find(path: Path, stem: str) -> Path | None:
    """Find the idx file called `stem`, perhaps after a prefix; prefer the plain file to its .gz; None if missing."""
    named = re.compile(rf"(.*-)?{stem}[-.]idx\d-ubyte(\.gz)?")
    matches = [
        (match[1] or "", len(file.name), file)
        for file in sorted(path.iterdir())
        if file.is_file() and (match := named.fullmatch(file.name))
    ]
    if len({prefix for prefix, _, _ in matches}) > 1:
        raise DataError(f"{path} holds more than one data set ({', '.join(file.name for _, _, file in matches)}): keep one a folder")
    return min(matches)[2] if matches else None
