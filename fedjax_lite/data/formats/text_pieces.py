"""Text files in pieces of whole lines, plain or gzip, so that no file is in memory whole and none expands without bound."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.reading import unpacked

__all__ = ["Piece", "pieces", "refuse_expansion"]

_PIECE, _PEEK, _LONGEST = 2**21, 2**10, 2**24  # bytes read at a time, looked at first; bytes of the longest line
_FREE, _RATIO = 2**28, 200  # bytes that every packed file may unpack to, and how many times its size a larger one


class Piece(NamedTuple):
    """Some whole lines of a file."""

    line: int  # the number of the first, from 1
    data: bytes  # UTF-8, line feeds alone between lines

    @property
    def lines(self) -> Iterator[str]:
        """The lines as text, with their ends."""
        return io.StringIO(self.data.decode())

    def after(self, number: int) -> "Piece":
        """Leave the first lines out."""
        begin, line = 0, self.line
        while line < self.line + number and begin < len(self.data):
            begin, line = (self.data.find(b"\n", begin) + 1) or len(self.data), line + 1
        return Piece(line, self.data[begin:])

    @property
    def blank(self) -> bool:
        """Whether no line holds anything."""
        return not self.data[:_PEEK].decode(errors="ignore").strip() and not self.data.decode().strip()


def pieces(file: Path) -> Iterator[Piece]:
    """Yield a file's lines in order, as UTF-8 text with line ends alone between them; a quoted cell is never cut.

    Raises:
        DataError: a file that is not UTF-8 text, that cannot be unpacked or unpacks to too much, a quote or a line without an end.
    """
    line, total = 1, 0
    with unpacked(file) as (stream, packed):
        while data := stream.read(_PIECE):
            data = _filled(data, stream, file, line)
            total += len(data)
            if packed:
                refuse_expansion(file, file.stat().st_size, total)
            yield (piece := Piece(line, _checked(data, file, line)))
            line += int(np.count_nonzero(np.frombuffer(piece.data, np.uint8) == ord("\n")))  # three times as fast as bytes.count


def refuse_expansion(file: Path | str, size: int, unpacked: int) -> None:
    """Refuse `size` packed bytes that unpack to far more, as files that are made to fill a memory do."""
    if unpacked > max(_FREE, _RATIO * size):
        raise DataError(f"{file} unpacks to more than {_RATIO} times its {size:,} bytes: if you trust it, unpack it and read what it holds")


def _filled(data: bytes, stream, file: Path, line: int) -> bytes:
    """Read on to the end of a line, and of a quoted cell."""
    more = stream.readline(_LONGEST)
    data += more
    odd = b'"' in data and data.count(b'"') % 2
    while odd and len(data) < _LONGEST and (more := stream.readline(_LONGEST)):
        data += more
        odd ^= more.count(b'"') % 2
    if len(data) >= _LONGEST and (odd or not more.endswith(b"\n")):
        what = "a quote is opened that is" if odd else "a line begins that is"
        raise DataError(f"{file}, line {line} or later: {what} not ended within {_LONGEST >> 20} MiB: this is no table")
    return data


def _checked(data: bytes, file: Path, line: int) -> bytes:
    """Refuse what is no UTF-8 text; all line ends become one character, and a byte order mark goes."""
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        place = line + data[: error.start].count(b"\n")
        raise DataError(f"{file}, line {place}: byte {data[error.start]:#04x} is not UTF-8 text: save the file as UTF-8") from None
    if b"\0" in data:
        raise DataError(f"{file}, line {line + data[: data.index(0)].count(10)}: a NUL byte: save the file as UTF-8 text")
    if line == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
