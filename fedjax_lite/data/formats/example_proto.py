"""Read a serialised tf.train.Example without TensorFlow.

Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }, Feature { BytesList bytes_list = 1, FloatList
float_list = 2 or Int64List int64_list = 3 }, each list { repeated value = 1 }, numbers packed or not.
Source: TensorFlow's core/example/feature.proto; Protocol Buffers, "Encoding".
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["features_of"]

_VARINT, _EIGHT, _MANY, _FOUR = 0, 1, 2, 5  # how a field is encoded
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3  # the lists of a Feature
_LONGEST = 10  # bytes of a number


def features_of(example: bytes) -> dict[str, np.ndarray | list[bytes]]:
    """Return the features of one example: float32 or int64 `[values]`, or a list of bytes.

    Raises:
        ValueError: for bytes that are no tf.train.Example.
    """
    found = {}
    for features in _inside(example, 1):
        for entry in _inside(features, 1):
            name, value = b"", b""
            for number, kind, held in _fields(entry):
                if kind != _MANY:
                    raise ValueError(f"the field {number} of a feature's entry is a number and no message")
                name, value = (held, value) if number == 1 else (name, held)
            found[name.decode()] = _values(value)
    return found


def _values(feature: bytes) -> np.ndarray | list[bytes]:
    """Return the values of a Feature, whichever list has them."""
    for number, kind, held in _fields(feature):
        if kind != _MANY or number not in (_BYTES, _FLOATS, _INTEGERS):
            raise ValueError(f"a feature has the field {number}, which is no list of bytes, floats or integers")
        if number == _BYTES:
            return list(_inside(held, 1))
        values = [(kind, each) for field, kind, each in _fields(held) if field == 1]
        if number == _FLOATS:
            if any(kind not in (_MANY, _FOUR) for kind, _ in values):
                raise ValueError("a list of floats holds other values")
            return np.frombuffer(b"".join(each for _, each in values), "<f4").astype(np.float32)
        if any(kind not in (_MANY, _VARINT) for kind, _ in values):
            raise ValueError("a list of integers holds other values")
        return np.concatenate([np.zeros(0, np.int64), *[_integers(each) if kind == _MANY else _signed(each) for kind, each in values]])
    return np.zeros(0, np.float32)


def _inside(message: bytes, field: int) -> Iterator[bytes]:
    """Yield the messages, or bytes, that a field of a message holds."""
    for number, kind, held in _fields(message):
        if number == field:
            if kind != _MANY:
                raise ValueError(f"the field {field} is a number and no message")
            yield held


def _fields(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield number, encoding and value of each field: an int for a varint, else bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, kind, value
            continue
        if kind not in (_EIGHT, _MANY, _FOUR):
            raise ValueError(f"the field {number} is encoded in the unknown way {kind}")
        length, place = _varint(message, place) if kind == _MANY else ((8 if kind == _EIGHT else 4), place)
        if place + length > len(message):
            raise ValueError(f"the field {number} ends beyond its message")
        yield number, kind, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, the lowest first; return it and the place after it."""
    value = 0
    for i, byte in enumerate(message[place : place + _LONGEST]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, place + i + 1
    raise ValueError("a number has no end")


def _signed(value: Any) -> np.ndarray:
    """Return one number in two's complement of 64 bits."""
    return np.array([value & (2**64 - 1)], np.uint64).view(np.int64)


def _integers(packed: bytes) -> np.ndarray:
    """Return packed numbers as int64, all at once."""
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 128) + 1
    lengths = np.diff(ends, prepend=0)
    if not len(raw):
        return np.zeros(0, np.int64)
    if not len(ends) or ends[-1] != len(raw) or lengths.max() > _LONGEST:
        raise ValueError("a number has no end")
    place = np.arange(len(raw)) - np.repeat(ends - lengths, lengths)
    return np.bitwise_or.reduceat((raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64), ends - lengths).view(np.int64)
