"""Pickles that hold arrays, and pickles that would run something."""

import builtins
import io
import os
import pickle
import struct

import numpy as np
import pytest
from fuzz import taking_at_most

from fedjax_lite.data import DataError
from fedjax_lite.data.formats.unpickle import unpickle


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(3, dtype=">i2"),
        np.array([True, False]),
        np.array(2.5, np.float32),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_come_back(array, protocol):
    held = unpickle(pickle.dumps([array, array], protocol), "f")
    for each in held:
        np.testing.assert_array_equal(each, array)
        assert each.dtype == array.dtype.newbyteorder("=") and each.shape == array.shape


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_is_no_array_comes_back(protocol):
    value = {"a": [1, -2, 300, 70_000, 2**40, 0.5, None, True, False, "é"], "b": (), "c": (1,), "d": (1, 2, 3, 4), 7: {}, "e": [[1], []]}
    assert unpickle(pickle.dumps(value, protocol), "f") == value
    assert unpickle(pickle.dumps(np.array([{"x": np.ones(2)}], object), protocol), "f")[0]["x"].tolist() == [1, 1]


def test_a_pickle_of_python_2_byte_by_byte():
    """What cPickle wrote for {"data": array([[1, 255]], uint8), "labels": [7]}: its strings are bytes, NumPy's module has its old name."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x02\x01\xfftb"
    )
    held = unpickle(b"\x80\x02}q\x00(U\x04data" + array + b"U\x06labels]q\x06K\x07au.", "f")
    assert held["labels"] == [7] and held["data"].tolist() == [[1, 255]] and held["data"].dtype == np.uint8


class Call:
    """An object whose pickle calls a function with arguments."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class Anything:
    pass


def by_hand(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


TEXT = b"X\x04\x00\x00\x00aaaa"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        Call(os.system, "touch {marker}"),
        Call(builtins.eval, "open('{marker}', 'w')"),
        Call(builtins.exec, "open('{marker}', 'w')"),
        Call(builtins.getattr, os, "system"),
        Call(np.frombuffer, b"a" * 8, "u1"),
        Call(np.zeros, (10**12,)),
        Call(np.load, "{marker}", None, True),
        Call(np.fromfile, "{marker}"),
        Call(np.memmap, "{marker}", "u1", "w+", 0, (9,)),
        Call(np.ndarray, (10**12,)),
        Call(io.open, "{marker}", "w"),
        Call(pickle.loads, b"N."),
        Anything(),
        Anything,
        len,
    ],
    ids=lambda value: getattr(getattr(value, "call", [value])[0], "__name__", "object"),
)
def test_nothing_is_run(tmp_path, value, protocol):
    marker = tmp_path / "run"
    if isinstance(value, Call):
        value.call = (value.call[0], tuple(str(each).format(marker=marker) if isinstance(each, str) else each for each in value.call[1]))
        if os in value.call[1]:
            value.call = (value.call[0], ("os", "system"))
    data = pickle.dumps([value], protocol)
    with pytest.raises(DataError, match="some.pkl: no data at byte .* of its pickle .*more than arrays, which is not run"):
        unpickle(data, "some.pkl")
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        by_hand(b"cnumpy\nndarray\nK\x05\x85R"),  # an array by its shape alone
        by_hand(ARRAY),  # an array that has no values
        by_hand(ARRAY, b"(K\x01", struct.pack("<BI", 0x4A, 2**31 - 1), b"\x85", DTYPE, b"\x89C\x01atb"),  # 2^31 values in a byte
        by_hand(ARRAY, b"(K\x01J\xff\xff\xff\xff\x85", DTYPE, b"\x89C\x01atb"),  # a negative shape
        by_hand(ARRAY, b"(K\x01K\x01\x85X\x02\x00\x00\x00u1\x89C\x01atb"),  # a type that is text
        by_hand(b"cnumpy\ndtype\nX\x04\x00\x00\x00S999K\x00K\x01\x87RN\x86"),
        by_hand(b"cos\nsystem\nX\x04\x00\x00\x00true\x85R"),
        by_hand(b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93"),
        by_hand(b"ios\nsystem\n"),
        by_hand(b"(cos\nsystem\no"),
        by_hand(TEXT, b"}b"),  # a state of text
        by_hand(b"c_codecs\nencode\n", TEXT, b"X\x05\x00\x00\x00hex_c\x86R"),
        by_hand(b"c_codecs\nencode\n}b"),  # a state of a name
        by_hand(b"P0\n"),
        by_hand(b"NQ"),
        by_hand(b"\x82\x01"),
        by_hand(b"\x96" + struct.pack("<Q", 2**40)),  # bytes that are not there
        by_hand(b"\x8e" + struct.pack("<Q", 2**40)),
        by_hand(b"r" + struct.pack("<I", 2**32 - 1)),  # a memo of nothing
        by_hand(b"h\x05"),
        by_hand(b"}]Ns"),  # a list as a key
        by_hand(b"}", b"N" + b"\x85" * 3000, b"Ns"),  # a deep key, whose hash would be deep
        by_hand(b"N" + b"\x85" * 3000, b"N\x93"),  # a deep name, whose text would be deep
        by_hand(b"a"),
        by_hand(b"NNa"),
        by_hand(b"NNNs"),
        by_hand(b"u"),
        by_hand(b"t"),
        by_hand(b"\x87"),
        by_hand(b"("),
        b"",
        b"\x80\x04N",
        b"I1\n.",
    ],
    ids=lambda data: data[:24].hex(),
)
def test_what_is_no_data_is_refused(data):
    with pytest.raises(DataError, match="some.pkl: (no data at byte|its pickle has no end)"):
        unpickle(data, "some.pkl")


def test_one_text_named_often_takes_no_room():
    """100 kB that a thousand arrays name would be 100 MB."""
    long = b"X" + struct.pack("<I", 10**5) + b"a" * 10**5 + b"\x94"
    array = ARRAY + b"(K\x01J" + struct.pack("<I", 10**5) + b"\x85" + DTYPE + b"\x89h\x00tb"
    encoded = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    with taking_at_most(2**22):
        with pytest.raises(DataError, match="whose bytes are not there"):
            unpickle(by_hand(long, b"](", array * 1000, b"e"), "f")
        unpickle(by_hand(long, b"](", encoded * 1000, b"e"), "f")


def test_a_number_for_the_memo_takes_no_room():
    with taking_at_most(2**20):
        assert unpickle(by_hand(b"Nr" + struct.pack("<I", 2**32 - 1)), "f") is None
