"""FedJAX's SQLite files: a row a client, whose examples are arrays in msgpack, packed by zlib."""

import math
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats import snippets
from fedjax_lite.data.formats.features import chosen, leaves
from fedjax_lite.data.formats.parts import part_of
from fedjax_lite.data.formats.reading import reading, room, train_and_test, within
from fedjax_lite.data.formats.sqlite import read_table
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import a_count

_ARRAY, _COMPLEX, _SCALAR, _TEXTS = 1, 2, 3, 4  # msgpack's extension codes
_MOST = 64  # members of a list or table but that of texts: msgpack takes the room of as many as a list boasts of


def fedjax_sqlite(
    path: str | os.PathLike,
    *,
    features: Mapping[str, str] | None = None,
    length: Whole = 80,
    invert: bool = False,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """FedJAX's EMNIST, CIFAR-100 or Shakespeare, or what `fedjax.SQLiteFederatedDataBuilder` wrote.

    Args:
        path: a folder with one *.sqlite file with "train" in its name and perhaps one with "test"; or one file, whose clients hold examples
            out.
        features, length, invert: as of `tff_hdf5`. FedJAX trains EMNIST inverted.
        partition: deals the training examples of all clients anew; None: the clients are the rows.
        test, seed: the share that each client holds out where there is no test file, and the seed of that.

    Returns:
        TrainTest, as of `tff_hdf5`. A client is called by its id as text; an id that is no text by its hexadecimal digits.

    Raises:
        FileNotFoundError: no such path, or no file for training in it.
        DataError: naming the file and the client: damaged, another format, other features.

    >>> import msgpack, pathlib, sqlite3, tempfile, zlib, fedjax_lite as fl
    >>> array = lambda shape, dtype, data: msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))
    >>> ann = {"x": array((3, 1), "uint8", bytes([0, 51, 255])), "y": array((3,), "int8", bytes([0, 1, 0]))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = sqlite3.connect(pathlib.Path(folder, "tiny_train.sqlite"))
    ...     _ = database.execute("CREATE TABLE federated_data (client_id BLOB PRIMARY KEY, data BLOB, num_examples INTEGER)")
    ...     _ = database.execute("INSERT INTO federated_data VALUES (?, ?, 3)", (b"ann", zlib.compress(msgpack.packb(ann))))
    ...     database.commit()
    ...     database.close()
    ...     data = fl.data.fedjax_sqlite(folder, test=0)
    >>> data.names, data.train.examples["y"].tolist(), data.train.examples["x"][1].tolist()
    (Names(1 clients: ann), [0, 1, 0], [0.20000000298023224])

    Source: Ro, Suresh, Wu 2021, "FedJAX: Federated learning simulation with JAX".
    """
    length = a_count("fedjax_sqlite", "length", length)
    files = train_and_test(path, (".sqlite",))
    parts = [_part(file, features, length, invert) for file in files if file is not None]
    words = snippets.WORDS if "snippets" in parts[0][1].values() else None
    return arrange(*[part for part, _ in parts], partition=partition, share=test, seed=seed, words=words)


def _part(file: Path, features: Mapping[str, str] | None, length: int, invert: bool) -> tuple[Part, dict[str, str]]:
    """Read all clients of a file; return them with the feature of each leaf."""
    left, clients = room(file), {}
    asked: dict[str, str] = {}
    for id, data, number in read_table(file, "federated_data", ("client_id", "data", "num_examples")):
        with reading(file, zlib.error, msgpack.UnpackException, OverflowError, TypeError):
            name = _name(id)
            if name in clients:
                raise DataError(f"the client {name!r} has two rows: remove one of them")
            if not isinstance(data, bytes):
                raise DataError(f"the data of client {name!r} are no bytes")
            unpack = zlib.decompressobj()
            plain = unpack.decompress(data, left + 1)
            left -= within(left, len(plain), f"client {name!r}")
            if not unpack.eof:
                raise DataError(f"the data of client {name!r} end within their packed bytes: they are cut off or damaged")
            held = _unpacked(plain, name)
            asked = asked or chosen(features, held, file)
            clients[name] = leaves(held, asked, length, invert, f"{file}: client {name!r}")
            _check_number(held, number, name)
    return part_of(clients, file), asked


def _unpacked(data: bytes, name: str) -> dict[str, Any]:
    """Return a client's features: arrays of numbers, or lists of bytes."""
    held = msgpack.unpackb(data, ext_hook=_extension, max_array_len=_MOST, max_map_len=_MOST)
    if not isinstance(held, dict) or not all(isinstance(value, np.ndarray | list) for value in held.values()):
        raise DataError(f"the data of client {name!r} are no table of arrays: it is another format")
    return held


def _extension(code: int, data: bytes) -> Any:
    """Return the array, number or texts of a msgpack extension."""
    unpacker = msgpack.Unpacker(raw=True, max_array_len=_MOST, max_map_len=_MOST, max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    if code not in (_ARRAY, _SCALAR, _TEXTS):
        raise DataError(f"the extension {code} is {'a complex number' if code == _COMPLEX else 'not known'}, neither numbers nor text")
    if unpacker.read_array_header() != (2 if code == _TEXTS else 3):
        raise DataError("an array is of another form")
    shape = unpacker.unpack()
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise DataError("an array has a shape that is none")
    if code == _TEXTS:
        texts = [unpacker.unpack() for _ in range(unpacker.read_array_header())]
        if len(shape) != 1 or len(texts) != shape[0] or not all(isinstance(text, bytes) for text in texts):
            raise DataError("an array of text is of another form")
        return texts
    dtype, raw = unpacker.unpack(), unpacker.unpack()
    if not isinstance(dtype, bytes) or not re.fullmatch(rb"bool|u?int(8|16|32|64)|float(16|32|64)", dtype) or not isinstance(raw, bytes):
        raise DataError(f"an array holds {str(dtype)[:40]}, which are no numbers")
    kind = np.dtype(dtype.decode()).newbyteorder("<")
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise DataError(f"an array {shape} of {kind} has {len(raw)} bytes: it is damaged")
    return np.frombuffer(raw, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def _check_number(held: dict[str, Any], number: Any, name: str) -> None:
    """Refuse a client whose row tells of another number of examples than it has."""
    counts = {len(value) for value in held.values() if not isinstance(value, np.ndarray) or value.ndim}
    if number is not None and counts != {number}:
        raise DataError(f"client {name!r} has {sorted(counts)} examples, its row says {number}: it is damaged")


def _name(id: Any) -> str:
    """Return a client's id as text."""
    if not isinstance(id, bytes):
        raise DataError(f"client_id holds {id!r}, neither bytes nor text")
    try:
        return id.decode()
    except UnicodeDecodeError:
        return id.hex()
