"""TensorFlow Federated's SQLite files: a row an example, which is a serialised tf.train.Example."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats import snippets
from fedjax_lite.data.formats.example_proto import features_of
from fedjax_lite.data.formats.features import chosen, leaves
from fedjax_lite.data.formats.parts import part_of
from fedjax_lite.data.formats.reading import one_file, reading
from fedjax_lite.data.formats.sqlite import read_table
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import a_count

_COLUMNS = ("split_name", "client_id", "serialized_example_proto")


def tff_sqlite(
    path: str | os.PathLike,
    *,
    features: Mapping[str, str] | None = None,
    length: Whole = 80,
    invert: bool = False,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """TFF's EMNIST, CIFAR-100 or Shakespeare as SQLite, packed (.sqlite.lzma, as it is downloaded) or not. Needs no TensorFlow.

    Args:
        path: the file, or a folder that holds one *.sqlite or *.sqlite.lzma. Its rows are of the split "train" or "test"; those of
            other splits are not read.
        features, length, invert: as of `tff_hdf5`.
        partition: deals the training examples of all clients anew; None: the clients are those of the file.
        test, seed: the share that each client holds out where the file has no split "test", and the seed of that.

    Returns:
        TrainTest, as of `tff_hdf5`. A feature of one number an example, but x, is that number.

    Raises:
        FileNotFoundError: no such path, or no such file in it.
        DataError: naming the file and the client: damaged, another format, other features.

    >>> import pathlib, sqlite3, tempfile, fedjax_lite as fl
    >>> x = b"\\n\\x0d\\n\\1x\\x12\\x08\\x12\\x06\\n\\x04\\0\\0\\x80?"  # the floats [1.0]
    >>> y = b"\\n\\x0b\\n\\1y\\x12\\x06\\x1a\\x04\\n\\2\\xac\\2"  # the integers [300]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = sqlite3.connect(pathlib.Path(folder, "tiny.sqlite"))
    ...     _ = database.execute("CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)")
    ...     _ = database.execute("INSERT INTO examples VALUES ('train', 'ann', ?)", (b"\\n\\x1c" + x + y,))
    ...     database.commit()
    ...     database.close()
    ...     data = fl.data.tff_sqlite(folder, test=0)
    >>> data.names, data.train.examples["x"].tolist(), data.train.examples["y"].tolist()
    (Names(1 clients: ann), [[1.0]], [300])
    """
    length = a_count("tff_sqlite", "length", length)
    file = one_file(path, (".sqlite", ".sqlite.lzma", ".sqlite.xz"))
    splits: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "test": {}}
    for split, client, example in read_table(file, "examples", _COLUMNS):
        with reading(file):
            name = _text(split, "split_name")
            if name in splits:
                splits[name].setdefault(_text(client, "client_id"), []).append(_features(example, client))
    if not splits["train"]:
        raise DataError(f'{file} has no examples of the split "train"')
    asked = chosen(features, next(iter(splits["train"].values()))[0], file)
    parts = [_part(splits[name], asked, length, invert, file) for name in ("train", "test") if splits[name]]
    words = snippets.WORDS if "snippets" in asked.values() else None
    return arrange(*parts, partition=partition, share=test, seed=seed, words=words)


def _part(clients: dict[str, list[dict[str, Any]]], asked: dict[str, str], length: int, invert: bool, file: Path) -> Part:
    """Stack each client's examples."""
    made = {}
    for name, examples in clients.items():
        where = f"{file}: client {name!r}"
        held = {
            feature: _stacked([example.get(feature) for example in examples], feature == asked.get("x"), f"{where}: {feature}")
            for feature in asked.values()
        }
        made[name] = leaves(held, asked, length, invert, where)
    return part_of(made, file)


def _stacked(values: list[Any], several: bool, where: str) -> Any:
    """Return one array of a feature's values, or one list of bytes; without `several`, single values have no axis."""
    if all(isinstance(value, list) for value in values):
        return [text for value in values for text in value]
    if not all(isinstance(value, np.ndarray) and value.shape == values[0].shape for value in values):
        raise DataError(f"{where} is missing in some examples, or has not as many values in each")
    array = np.stack(values)
    return array[:, 0] if array.shape[1] == 1 and not several else array


def _features(example: Any, client: Any) -> dict[str, Any]:
    """Return an example's features."""
    if not isinstance(example, bytes):
        raise DataError("serialized_example_proto holds no bytes")
    try:
        return features_of(example)
    except ValueError as error:
        raise DataError(f"an example of client {client!r} is no tf.train.Example: {error}") from None


def _text(value: Any, column: str) -> str:
    """Return a column's text."""
    if not isinstance(value, bytes):
        raise DataError(f"{column} holds {value!r}, which is no text")
    return value.decode()
