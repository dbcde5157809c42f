"""Read the pickles that data sets are kept in, and run nothing: arrays of numbers, lists, dicts, text and bytes, by a small machine.

Python's own unpickler calls what a file names. Here a file can name a few things only, and none of them is called: they are signs by which
arrays and their types are told, and what an array holds must be in the file.
"""

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError

__all__ = ["unpickle"]

_MARK = object()
_NAMES = {
    "numpy.core.multiarray _reconstruct": "array",  # NumPy before 2
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "bytes",  # bytes, as Python 3 writes them for Python 2
}
_VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BINSTRING SHORT_BINSTRING".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MOST_AXES, _MOST_LONG = 32, 2**48


class _Named(NamedTuple):
    """One of the names that a pickle may hold."""

    kind: str


@dataclass
class _Unbuilt:
    """An array or a type of which the pickle has not yet said what it holds; `built` then."""

    code: str | None  # of a type; None: an array
    built: Any = None


@dataclass
class _Machine:
    """What a pickle's opcodes work on."""

    left: int  # bytes that arrays may still take: together no more than the file, since one text could be named without end
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)


def unpickle(data: bytes, where: Any) -> Any:
    """Return what a pickle holds.

    Args:
        data: a pickle of protocol 2, 3 or 4; strings of Python 2 become text, each byte a character.
        where: the file, for errors.

    Returns:
        None, numbers, text, bytes, lists, tuples, dicts with keys of text, bytes or numbers, and arrays of numbers, no larger than
        `data`; an array of objects is a list of them.

    Raises:
        DataError: naming the file and the byte: what is cut off, another name than NumPy's arrays and types, other opcodes, an array whose
            bytes are not in the file.

    >>> import pickle
    >>> unpickle(pickle.dumps({"x": np.arange(3), "y": [1, 2]}, protocol=4), "file")
    {'x': array([0, 1, 2]), 'y': [1, 2]}
    """
    machine, place = _Machine(len(data)), 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            place = position or 0
            if opcode.name == "STOP":
                return _whole(machine.stack.pop())
            _step(opcode.name, argument, machine)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        said = str(error)[:120] or type(error).__name__
        raise DataError(
            f"{where}: no data at byte {place} of its pickle ({said}): it is damaged, or holds more than arrays, which is not run"
        ) from None
    raise DataError(f"{where}: its pickle has no end: it is cut off, copy it again")


def _step(name: str, argument: Any, machine: _Machine) -> None:
    """Do what one opcode says to the stack and the memo."""
    stack, memo = machine.stack, machine.memo
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _OPERATIONS:
        _OPERATIONS[name](stack)
    elif name == "BUILD":
        state, unbuilt = stack.pop(), stack.pop()
        stack.append(_built(unbuilt, state, machine))
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        held = memo[argument]
        stack.append(held.built if isinstance(held, _Unbuilt) and held.built is not None else held)
    elif name == "GLOBAL":
        stack.append(_named(argument))
    elif name == "STACK_GLOBAL":
        attribute, module = _text(stack.pop()), _text(stack.pop())
        stack.append(_named(f"{module} {attribute}"))
    elif name not in ("PROTO", "FRAME"):
        raise ValueError(f"the opcode {name}")


def _named(name: str) -> _Named:
    """Return the sign of a name that a pickle may hold."""
    if name not in _NAMES:
        raise ValueError(f"the name {name.replace(' ', '.')}")
    return _Named(_NAMES[name])


def _text(value: Any) -> str:
    """Return text; refuse another value."""
    if type(value) is not str:
        raise ValueError(f"a name of the type {type(value).__name__}")
    return value


def _whole(value: Any) -> Any:
    """Return a value; refuse a mark, and an array or a type that is not built."""
    if value is _MARK or isinstance(value, _Unbuilt):
        raise ValueError("an array that is not whole")
    return value


def _marked(stack: list[Any]) -> list[Any]:
    """Take the values above the last mark, and the mark."""
    i = len(stack) - 1
    while i >= 0 and stack[i] is not _MARK:
        i -= 1
    return _last(stack, len(stack) - 1 - i, i)


def _last(stack: list[Any], number: int, below: int | None = None) -> list[Any]:
    """Take the last values of the stack; with them what lies above the place `below`."""
    first = len(stack) - number
    if first < 0 or below is not None and below < 0:
        raise ValueError("too few values")
    values = [_whole(value) for value in stack[first:]]
    del stack[first if below is None else below :]
    return values


def _append(stack: list[Any], values: list[Any]) -> None:
    """Add values to the list on the stack."""
    if type(stack[-1]) is not list:
        raise ValueError("no list to append to")
    stack[-1].extend(values)


def _set(stack: list[Any], values: list[Any]) -> None:
    """Add keys and values, in turns, to the dict on the stack."""
    if type(stack[-1]) is not dict or len(values) % 2:
        raise ValueError("no dict to set in")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) not in (str, bytes, int, float):  # what is deep has no hash
            raise ValueError(f"a key of the type {type(key).__name__}")
        stack[-1][key] = value


def _reduce(stack: list[Any]) -> None:
    """Begin an array or a type, or leave text for bytes, in the place of a call."""
    named, arguments = _last(stack, 2)
    if type(named) is not _Named or type(arguments) is not tuple:
        raise ValueError("a call of what is no name")
    if named.kind == "array":
        stack.append(_Unbuilt(None))
    elif named.kind == "dtype":
        stack.append(_Unbuilt(_text(arguments[0])))
    elif named.kind == "bytes" and arguments[1:] == ("latin1",):
        stack.append(_text(arguments[0]))
    else:
        raise ValueError(f"a call of {named.kind}")


def _built(unbuilt: Any, state: Any, machine: _Machine) -> Any:
    """Return the array or the type that a state describes."""
    if type(unbuilt) is not _Unbuilt or unbuilt.built is not None or type(state) is not tuple:
        raise ValueError("a state of what is no array")
    unbuilt.built = _array(state, machine) if unbuilt.code is None else _dtype(unbuilt.code, state)
    return unbuilt.built


def _dtype(code: str, state: tuple) -> Any:
    """Return a type of numbers, or "objects"."""
    if code in ("O8", "O4"):
        return "objects"
    if not re.fullmatch(r"b1|[iu][1248]|f[248]", code) or _text(state[1]) not in ("<", ">", "|", "="):
        raise ValueError(f"the type {code[:20]!r}")
    return np.dtype(code).newbyteorder(state[1])


def _array(state: tuple, machine: _Machine) -> Any:
    """Return an array over bytes, or a list of objects, if there are as many as the shape says."""
    _, shape, dtype, fortran, values = state
    if type(shape) is not tuple or len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < _MOST_LONG for n in shape):
        raise ValueError("a shape that is none")
    if type(dtype) is str and dtype == "objects":
        if type(values) is not list or len(values) != math.prod(shape):
            raise ValueError("objects of another number than the shape says")
        return values
    if not isinstance(dtype, np.dtype) or type(values) not in (str, bytes):
        raise ValueError("an array without a type or values")
    machine.left -= len(values)
    if machine.left < 0 or len(values) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array {list(shape)} of {dtype} whose bytes are not there")
    raw = values.encode("latin1") if type(values) is str else values
    array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran is True or fortran == 1 else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


_OPERATIONS: dict[str, Callable[[list[Any]], None]] = {
    "MARK": lambda stack: stack.append(_MARK),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "TUPLE1": lambda stack: stack.append(tuple(_last(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_last(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_last(stack, 3))),
    "TUPLE": lambda stack: stack.append(tuple(_marked(stack))),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "APPEND": lambda stack: _append(stack, _last(stack, 1)),
    "APPENDS": lambda stack: _append(stack, _marked(stack)),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "SETITEM": lambda stack: _set(stack, _last(stack, 2)),
    "SETITEMS": lambda stack: _set(stack, _marked(stack)),
    "REDUCE": _reduce,
}
