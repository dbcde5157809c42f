"""Read arrays of an .npz file within bounds: NumPy's own reader takes the room that a header boasts of, and unpickles objects."""

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.reading import read_all, reading, regular, room
from fedjax_lite.data.formats.unpickle import unpickle

_MOST_HEADER = 10_000  # bytes
_FACTS = (("descr", r"'([<>|=]?\w+)'"), ("fortran_order", "(True|False)"), ("shape", r"\(((?:\d{1,18}L?,? ?){0,32})\)"))
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, MemoryError, KeyError, OverflowError, TypeError)


def read_npz(file: Path, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Read the arrays `names` of an .npz file (None: all); an array of objects becomes what its pickle holds, a list of them."""
    most = room(regular(file))
    with reading(file, *_DAMAGED), zipfile.ZipFile(file) as archive:
        held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = {}
        for name in held if names is None else [name for name in names if name in held]:
            info = held[name]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"the array {name!r} is packed in another way than NumPy's: write it with np.savez_compressed")
            with archive.open(info) as stream:
                data = read_all(stream, most, f"the array {name!r}")
            most -= len(data)
            arrays[name] = _array(data, f"{file}: {name}")
        return arrays


def _array(data: bytes, where: str) -> Any:
    """Return the array that the bytes of an .npy file hold, or the objects of its pickle."""
    shape, fortran, code, start = _header(data[:_MOST_HEADER], where)
    if code[-1] == "O":
        return unpickle(data[start:], where)
    if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", code):
        raise DataError(f"{where} holds {code}, not numbers")
    dtype = np.dtype(code)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        found = f"{len(data) - start} bytes of values, its header ({dtype}, {list(shape)}) says {expected}"
        raise DataError(f"{where} has {found}: it is cut off or damaged")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(data: bytes, where: str) -> tuple[tuple[int, ...], bool, str, int]:
    """Return shape, whether it is in Fortran's order, the type's code, and where the values start."""
    wide = data[6:7] in (b"\2", b"\3")
    begin = 12 if wide else 10
    length = int.from_bytes(data[8:begin], "little")
    text = data[begin : begin + length].decode("latin1")
    code, fortran, shape = (re.search(f"'{key}': {value}", text) for key, value in _FACTS)
    if data[:6] != b"\x93NUMPY" or begin + length > len(data) or not (code and fortran and shape):
        raise DataError(f"{where} starts with no header of one array of numbers or objects, as np.savez writes them: it is damaged")
    lengths = tuple(int(each.rstrip("L")) for each in re.split("[, ]+", shape[1]) if each)
    return lengths, fortran[1] == "True", code[1], begin + length
