"""FedJAX's SQLite, its msgpack written byte by byte."""

import sqlite3
import struct
import zlib

import numpy as np
import pytest
from fuzz import taking_at_most

from fedjax_lite.data import DataError, fedjax_sqlite
from fedjax_lite.data.formats.snippets import WORDS, windows


def blob(data):
    return b"\xc6" + struct.pack(">I", len(data)) + data


def text(word):
    return bytes([0xA0 | len(word)]) + word.encode()


def whole(n):
    return b"\xce" + struct.pack(">I", n)


def extension(code, data):
    return b"\xc9" + struct.pack(">IB", len(data), code) + data


def array(x, code=1):
    shape = bytes([0x90 | x.ndim]) + b"".join(map(whole, x.shape))
    return extension(code, b"\x93" + shape + text(x.dtype.name) + blob(x.tobytes()))


def texts(lines, shape=None):
    flat = b"\xdd" + struct.pack(">I", len(lines)) + b"".join(map(blob, lines))
    return extension(4, b"\x92\x91" + whole(len(lines) if shape is None else shape) + flat)


def table(**features):
    return bytes([0x80 | len(features)]) + b"".join(text(name) + value for name, value in features.items())


def write(file, clients, schema="federated_data (client_id BLOB NOT NULL PRIMARY KEY, data BLOB NOT NULL, num_examples INTEGER NOT NULL)"):
    """One row a client: (id, data packed or not, number of examples)."""
    file.unlink(missing_ok=True)
    database = sqlite3.connect(file)
    database.execute(f"CREATE TABLE {schema}")
    database.executemany("INSERT INTO federated_data VALUES (?, ?, ?)", clients)
    database.commit()
    database.close()
    return file


def client(name, n, packed=True, **features):
    data = table(**features)
    return name, zlib.compress(data) if packed else data, n


def xy(n, first=0.0):
    return {"x": array(np.arange(first, first + 2 * n).reshape(n, 2)), "y": array(np.arange(n))}


def test_emnist(tmp_path):
    pixels = np.random.default_rng(0).random((3, 28, 28), np.float32)
    rows = [
        client(
            b"0a:f1000_01", 3, pixels=array(pixels), label=array(np.array([9, 35, 61], np.int32)), domain_id=array(np.zeros(3, np.int32))
        ),
        client(b"\xff\x01", 1, pixels=array(pixels[:1]), label=array(np.array([1], np.int64))),
    ]
    write(tmp_path / "emnist_train.sqlite", rows)
    write(tmp_path / "emnist_test.sqlite", rows[:1])
    data = fedjax_sqlite(tmp_path)
    assert data.names == ("0a:f1000_01", "ff01") and data.train.size.tolist() == [3, 1] and data.test.size.tolist() == [3, 0]
    np.testing.assert_array_equal(data.train.client(0)["x"], pixels[..., None])
    np.testing.assert_array_equal(fedjax_sqlite(tmp_path, invert=True).train.client(0)["x"], 1 - pixels[..., None])
    assert data.train.examples["y"].tolist() == [9, 35, 61, 1]


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
)
def test_every_type_of_number(tmp_path, dtype):
    x = np.arange(4).reshape(2, 2).astype(dtype)
    write(tmp_path / "a_train.sqlite", [client(b"ann", 2, x=array(x), y=array(np.arange(2)))])
    found = fedjax_sqlite(tmp_path, test=0).train.examples["x"]
    np.testing.assert_array_equal(found, (x / 255).astype(np.float32) if dtype == "uint8" else x.astype(found.dtype))
    assert found.dtype == (np.float32 if "float" in dtype or dtype == "uint8" else np.int32)


def test_shakespeare_and_clients_in_one_file(tmp_path):
    lines = [b"To be,", b"or not", b""]
    file = write(
        tmp_path / "shakespeare_train.sqlite", [client(b"HAMLET", 3, snippets=texts(lines)), client(b"EMPTY", 0, snippets=texts([]))]
    )
    data = fedjax_sqlite(file, length=4, test=0)
    assert data.names == ("HAMLET",) and data.words == WORDS
    for leaf, values in windows(lines, 4).items():
        assert data.train.examples[leaf].tolist() == values.tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((b"u", b"no zlib", 1), "Error -3 while decompressing"),
        ((b"u", zlib.compress(table(**xy(1)))[:-3], 1), "the data of client 'u' end within their packed bytes"),
        ((b"u", 5, 1), "the data of client 'u' are no bytes"),
        ((5, b"", 1), "client_id holds 5, neither bytes nor text"),
        (client(b"u", 2, **xy(1)), r"client 'u' has \[1\] examples, its row says 2"),
        (client(b"u", 1, x=b"\x01"), "the data of client 'u' are no table of arrays"),
        ((b"u", zlib.compress(b"\x90"), 1), "the data of client 'u' are no table of arrays"),
        ((b"u", zlib.compress(b""), 1), "incomplete input"),
        ((b"u", zlib.compress(b"\x91" * 5000), 1), "a_train.sqlite: "),
        (client(b"u", 1, x=array(np.ones(1)), y=extension(2, b"\x92\x01\x01")), "the extension 2 is a complex number"),
        (client(b"u", 1, x=extension(9, b"\x92\x01\x01")), "the extension 9 is not known"),
        (client(b"u", 1, x=extension(1, b"")), "a_train.sqlite: "),
        (client(b"u", 1, x=extension(1, b"\x92")), "an array is of another form"),
        (client(b"u", 1, x=extension(1, b"\x93\x01")), "an array has a shape that is none"),
        (client(b"u", 1, x=extension(1, b"\x93\x91\xff")), "an array has a shape that is none"),
        (client(b"u", 1, x=extension(1, b"\x93\x91\x01" + text("O") + blob(b""))), "an array holds b'O', which are no numbers"),
        (client(b"u", 1, x=extension(1, b"\x93\x91\x01" + text("str") + blob(b""))), "an array holds b'str', which are no numbers"),
        (client(b"u", 1, x=extension(1, b"\x93\x91\x01" + text("int8") + blob(b"12"))), r"an array \[1\] of int8 has 2 bytes"),
        (client(b"u", 1, x=extension(1, b"\x93\x91\xcf" + b"\xff" * 8 + text("int8") + blob(b"1"))), "an array has a shape that is none"),
        (client(b"u", 1, snippets=texts([b"a"], shape=2)), "an array of text is of another form"),
        (client(b"u", 1, snippets=extension(4, b"\x92\x91\x01\xdd" + b"\xff" * 4)), "a_train.sqlite: "),
        (client(b"u", 1, x=array(np.ones(1), code=3), y=array(np.ones(2))), "client 'u' has"),
        (client(b"u", 1, a=array(np.ones(1))), "has the features a: say which are which"),
        (client("ann", 1, **xy(1)), "the client 'ann' has two rows"),
    ],
)
def test_rows_that_are_damaged(tmp_path, row, message):
    rows = [row] if "features" in message else [client(b"ann", 1, **xy(1)), row]
    write(tmp_path / "a_train.sqlite", rows)
    with pytest.raises(DataError, match=f"a_train.sqlite.*{message}|{message}"):
        fedjax_sqlite(tmp_path, test=0)


@pytest.mark.parametrize(
    "data",
    [
        table(x=blob(bytes(2**27))),  # a bomb
        (b"\xdd" + struct.pack(">I", 2**20)) * 400 + bytes(2**20),  # lists in lists that boast
        table(x=extension(4, b"\x92\x91\x01" + (b"\xdd" + struct.pack(">I", 2**20)) * 400 + bytes(2**20))),
    ],
    ids=["a bomb", "lists", "lists in an array"],
)
def test_what_boasts_takes_no_room(tmp_path, data):
    write(tmp_path / "a_train.sqlite", [(b"u", zlib.compress(data), 1)])
    del data
    with taking_at_most(2**28):
        with pytest.raises(DataError, match="a_train.sqlite: "):
            fedjax_sqlite(tmp_path)


def test_another_table(tmp_path):
    write(tmp_path / "a_train.sqlite", [], "federated_data (client_id, data, other)")
    with pytest.raises(DataError, match="the table 'federated_data' has no column 'num_examples'"):
        fedjax_sqlite(tmp_path)
    write(tmp_path / "a_train.sqlite", [])
    with pytest.raises(DataError, match="a_train.sqlite holds no examples"):
        fedjax_sqlite(tmp_path)
