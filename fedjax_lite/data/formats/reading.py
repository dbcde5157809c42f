"""What readers of files share: errors that name the file, regular files alone, and room in proportion to a file."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedjax_lite.data.error import DataError
from fedjax_lite.refuse import short

_LONGEST = 400  # characters that another library may say: some tell the bytes that they met
_EXPANDS, _AT_LEAST = 100, 2**26  # a packed file may grow to so many times its size, or to so many bytes: a bomb grows a thousandfold


@contextmanager
def reading(file: Any, *errors: type[Exception]) -> Iterator[None]:
    """Raise what is wrong with a file's content as a DataError that names `file`; `errors` are those of the library that reads."""
    caught: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except caught as error:
        if isinstance(error, DataError) and str(file) in str(error):
            raise
        said = short(str(error) or type(error).__name__, _LONGEST)
        where = "" if str(file) in said else f"{file}: "
        remedy = "" if isinstance(error, ValueError) else ": it is cut off, damaged or of another form, copy it again"
        raise DataError(f"{where}{said}{remedy}") from None


@contextmanager
def unpacked(file: str | os.PathLike) -> Iterator[tuple[Any, bool]]:
    """Open a file, plain or gzip (recognised by its content), and say whether it is packed; what cannot be unpacked is a DataError."""
    with open(file, "rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(file) if packed else open(file, "rb") as stream:
            yield stream, packed
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file} cannot be unpacked ({error}): it is cut off or damaged, copy it again") from None


def folder(path: str | os.PathLike, holds: str) -> Path:
    """Return the folder at `path`; refuse another thing, saying what the folder `holds`."""
    found = Path(path).expanduser()
    if not found.is_dir():
        raise FileNotFoundError(f"path={str(found)!r} is not a folder: give the one that holds {holds}")
    return found


def regular(file: Path) -> Path:
    """Return a file; refuse a folder, a device or a pipe, which may have no end, and a link that leads nowhere."""
    if not file.is_file():
        raise DataError(f"{file} is no regular file: put the file itself there")
    return file


def train_and_test(path: str | os.PathLike, endings: tuple[str, ...]) -> tuple[Path, Path | None]:
    """Find a folder's files by "train" and "test" in their names; a path of one file is the training part."""
    found = Path(path).expanduser()
    if found.is_file():
        return found, None
    named = f"files such as shakespeare_train{endings[0]} and shakespeare_test{endings[0]}"
    files = [file for file in sorted(folder(path, named).iterdir()) if file.name.endswith(endings)]
    pair = [[file for file in files if part in file.name.lower()] for part in ("train", "test")]
    if not pair[0]:
        raise FileNotFoundError(f"{found} holds no file for training: expected {named}")
    for matches in pair:
        if len(matches) > 1:
            raise DataError(f"{found} holds more than one data set ({', '.join(file.name for file in matches)}): keep one a folder")
    return regular(pair[0][0]), regular(pair[1][0]) if pair[1] else None


def one_file(path: str | os.PathLike, endings: tuple[str, ...]) -> Path:
    """Return the file at `path`, or the one of a folder whose name has one of the `endings`."""
    found = Path(path).expanduser()
    if found.is_file():
        return found
    files = [file for file in sorted(folder(path, f"one *{endings[0]} file").iterdir()) if file.name.endswith(endings)]
    if not files:
        raise FileNotFoundError(f"{found} holds no file with the ending {' or '.join(endings)}")
    if len(files) > 1:
        raise DataError(f"{found} holds more than one data set ({', '.join(file.name for file in files)}): give one of these files")
    return regular(files[0])


def files_of(path: Any, ends: tuple[str, ...]) -> list[Path]:
    """Return the files that a path, or each of several, names: itself, or those in a folder with one of the endings, sorted.

    Raises:
        FileNotFoundError: no such file, or a folder without any.
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    found = []
    for each in map(Path, given):
        each = each.expanduser()
        if not each.exists():
            raise FileNotFoundError(f"path={str(each)!r} is not there: give a file, several, or a folder")
        inside = sorted(file for file in each.iterdir() if file.name.removesuffix(".gz").endswith(ends)) if each.is_dir() else [each]
        if not inside:
            raise FileNotFoundError(f"path={str(each)!r} is a folder without {', '.join(ends)}: give another, or a file by name")
        found += inside
    if not found:
        raise ValueError("path is an empty list: give a file at least")
    return found


def stem(file: Path) -> str:
    """Return a file's name without its ending, and without .gz.

    >>> stem(Path("data/ann.csv.gz"))
    'ann'
    """
    return Path(file.name.removesuffix(".gz")).stem


def room(file: Path) -> int:
    """Return the bytes that a file may become in memory."""
    return max(_AT_LEAST, _EXPANDS * file.stat().st_size)


def within(most: int, wanted: int, what: str) -> int:
    """Return a number of bytes; refuse more than there is room for."""
    if wanted > most:
        raise DataError(f"{what} has {wanted} bytes unpacked, too many for a file of this size (at most {most}): it is no data set")
    return wanted


def read_all(stream: Any, most: int, what: str) -> bytes:
    """Read a stream to its end, and no more than a byte beyond `most`."""
    data = stream.read(most + 1)
    within(most, len(data), what)
    return data
