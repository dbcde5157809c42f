"""TensorFlow Federated's HDF5 files: a group a client, in it a data set a feature."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats import snippets
from fedjax_lite.data.formats.extra import extra
from fedjax_lite.data.formats.features import chosen, leaves
from fedjax_lite.data.formats.parts import part_of
from fedjax_lite.data.formats.reading import reading, room, train_and_test, within
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import a_count

_TEXT = 64  # bytes that Python takes for a text, however short
_DAMAGED = (OSError, KeyError, RuntimeError, TypeError, AttributeError, OverflowError, MemoryError)  # what h5py raises


def tff_hdf5(
    path: str | os.PathLike,
    *,
    features: Mapping[str, str] | None = None,
    length: Whole = 80,
    invert: bool = False,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """TFF's EMNIST, CIFAR-100 or Shakespeare as HDF5: `examples/<client>/<feature>` in a file of each part. Needs h5py.

    Args:
        path: a folder with one *.h5 file with "train" in its name and perhaps one with "test"; or one file, whose clients
            hold examples out.
        features: leaf to feature, such as {"x": "image", "y": "coarse_label"}; None: pixels and label (EMNIST), image and label
            (CIFAR-100), x and y, or snippets (Shakespeare), whichever the files have.
        length: characters of a window of text.
        invert: give 1 - x. EMNIST on disk is black ink (0) on a white page (1).
        partition: deals the training examples of all clients anew; None: the clients are the groups.
        test, seed: the share that each client holds out where there is no test file, and the seed of that.

    Returns:
        TrainTest. Examples: of images "x" float32 `[28, 28, 1]` or `[32, 32, 3]` in [0, 1] and "y" int32. Of text "x" and "y",
        the next characters, int32 `[length]`: 0 is padding (`supervised(model, ignore=0)`), 1 and 2 begin and end a snippet, 3 to 88 are
        the characters of TFF's vocabulary, 89 is any other; `words` says which. Other features as they are, of bytes scaled to [0, 1].
        A test part none of whose clients trains (CIFAR-100) is one central set.

    Raises:
        FileNotFoundError: no such path, or no file for training in it.
        ImportError: without h5py.
        DataError: naming file and client: damaged, other features, values in another file, more of them than a file of this size holds.

    >>> import h5py, pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(pathlib.Path(folder, "tiny_train.h5"), "w") as file:
    ...         file["examples/ann/snippets"] = np.array([b"To be,", b"or not"])
    ...     data = fl.data.tff_hdf5(folder, length=5, test=0)
    >>> data.names, data.train.size.tolist(), "".join(data.words[i] for i in data.example["y"])
    (Names(1 clients: ann), [3], 'To be')

    Source: Caldas et al. 2018 and McMahan et al. 2017, as TensorFlow Federated distributes their data.
    """
    length = a_count("tff_hdf5", "length", length)
    files = train_and_test(path, (".h5", ".hdf5"))
    parts = [_part(file, features, length, invert) for file in files if file is not None]
    words = snippets.WORDS if any(asked == "snippets" for asked in parts[0][1].values()) else None
    return arrange(*[part for part, _ in parts], partition=partition, share=test, seed=seed, words=words)


def _part(file: Path, features: Mapping[str, str] | None, length: int, invert: bool) -> tuple[Part, dict[str, str]]:
    """Read all clients of a file; return them with the feature of each leaf."""
    h5py = extra("h5py", "h5py", "hdf5")
    left, clients = room(file), {}
    asked: dict[str, str] = {}
    with reading(file, *_DAMAGED), h5py.File(file, "r") as opened:
        examples = _inside(opened, "examples", h5py.Group, h5py)
        for name in examples:
            group = _inside(examples, name, h5py.Group, h5py)
            asked = asked or chosen(features, group, file)
            held = {}
            for feature in asked.values():
                if feature in group:
                    held[feature] = _values(_inside(group, feature, h5py.Dataset, h5py), left, f"client {name!r}, {feature}")
                    left -= _bytes(held[feature])
            clients[name] = leaves(held, asked, length, invert, f"{file}: client {name!r}")
    return part_of(clients, file), asked


def _inside(group: Any, name: str, kind: type, h5py: Any) -> Any:
    """Return what lies in a group of the same file; refuse a link, which may lead to any file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], kind):
        raise DataError(f"{group.name}/{name} is no {kind.__name__.lower()} of this file: expected examples/<client>/<feature>")
    return group[name]


def _values(dataset: Any, left: int, what: str) -> Any:
    """Read an array of numbers, or text as a list of bytes, if there is room for it."""
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{what} has its values in another file: copy them into this one")
    each = dataset.dtype.itemsize + (0 if dataset.dtype.kind in "biuf" else _TEXT)
    within(left, int(dataset.size or 0) * each, what)
    if dataset.dtype.kind in "biuf":
        return np.asarray(dataset[()])
    if dataset.ndim != 1 or dataset.dtype.kind not in "SO":
        raise DataError(f"{what} holds {dataset.dtype}{list(dataset.shape)}, neither numbers nor text")
    if dataset.dtype.kind == "S":
        return dataset[()].tolist()
    texts: list[bytes] = []
    for i in range(len(dataset)):  # one by one: each may be as long as all of them may
        texts.append(dataset[i])
        left = left - within(left, len(texts[-1]), what)
    return texts


def _bytes(values: Any) -> int:
    """Return the room that values take."""
    return values.nbytes if isinstance(values, np.ndarray) else sum(_TEXT + len(value) for value in values)
