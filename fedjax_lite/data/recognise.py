"""Tell what a path holds, by the names of its files and their first bytes: which of the readers to call."""

import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fedjax_lite.data.error import DataError

__all__ = ["Recognised", "recognise"]

MOST_FILES, MOST_ENTRIES, DEEPEST = 5000, 1000, 4  # looked at: files in all, entries a folder, folders within each other
HEAD = 2**16  # bytes of a file that are looked at; SQLite's tables are named on its first page, which has no more


class Recognised(NamedTuple):
    """What a path holds."""

    format: str  # the name of its reader, a function of `fl.data`
    why: str  # the file that tells, and how


class _Format(NamedTuple):
    """How files of a format are named, relative to the folder given, and how they begin."""

    name: str
    files: str  # a pattern of paths
    what: str  # what such a file is, for a person
    is_one: Callable[[Path], bool] | None = None  # looks into a file; None: its name tells
    own: int = 0  # 0: a layout of its own; 1: files that other data may lie beside; 2: files that lie beside all kinds of data


def recognise(path: str | os.PathLike) -> Recognised:
    """Tell the format of the files at a path.

    Names and first bytes are looked at, of a few thousand files at most; hidden files and folders are not. Where a folder has the
    layout of a data set (LEAF's, CIFAR's, a store's, ...), other files beside it do not count, and text counts where there is nothing else.

    Args:
        path: a file or a folder.

    Returns:
        The name of the format's reader, and what tells it.

    Raises:
        FileNotFoundError: nothing is there.
        DataError: no format, or more than one; names the formats found.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "people.csv").write_text("client,x,y\\nann,1,0\\n")
    ...     recognise(folder)
    Recognised(format='csv', why='people.csv is a table')
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist: give the file or the folder that holds the data")
    files = {path.name: path} if path.is_file() else {each.relative_to(path).as_posix(): each for each in _files(path)}
    found = {}
    for each in FORMATS:
        named = [name for name in files if re.fullmatch(each.files, name, re.IGNORECASE)]
        first = next((name for name in named[:3] if each.is_one is None or each.is_one(files[name])), None)
        if first is None and path.is_file() and each.own == 1 and each.is_one is not None and each.is_one(path):
            first = path.name  # by its first bytes, whatever it is called
        if first is not None:
            found[each] = Recognised(each.name, f"{first} is {each.what}")
    if not found:
        shown = ", ".join(list(files)[:3]) + (", ..." if len(files) > 3 else "")
        raise DataError(
            f"{path} holds no known format ({shown or 'no files'}): take the function of fl.data that reads it (in a configuration its "
            f"name), one of {', '.join(each.name for each in FORMATS)}"
        )
    closest = min(each.own for each in found)
    likely = [what for each, what in found.items() if each.own == closest]
    if len(likely) > 1:
        both = " and ".join(f"{what.format} ({what.why})" for what in likely)
        names = " or ".join(f"fl.data.{what.format}" for what in likely)
        raise DataError(f'{path} holds {both}: take {names} (in a configuration name = "{likely[0].format}"), or keep one a folder')
    return likely[0]


def _files(folder: Path) -> Iterator[Path]:
    """Yield files below a folder, those nearest to it first, up to `MOST_FILES`; hidden ones are left out."""
    folders, count = [folder], 0
    for _ in range(DEEPEST):
        inside: list[Path] = []
        for here in folders:
            with os.scandir(here) as entries:
                some = sorted((entry.name, entry.is_dir()) for entry, _ in zip(entries, range(MOST_ENTRIES), strict=False))
            for name, is_dir in some:
                if name.startswith("."):
                    continue
                if is_dir:
                    inside.append(here / name)
                    continue
                count += 1
                if count > MOST_FILES:
                    return
                yield here / name
        folders = inside


def _head(file: Path) -> bytes:
    """Return the first bytes of a file, unpacked where it is packed by LZMA; none where it can't be read."""
    try:
        with lzma.open(file) if file.suffix in (".lzma", ".xz") else open(file, "rb") as stream:
            return stream.read(HEAD)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return b""


def _begins(*starts: bytes) -> Callable[[Path], bool]:
    """Return whether a file begins in one of these ways."""
    return lambda file: _head(file).startswith(starts)


def _holds(start: bytes, word: bytes) -> Callable[[Path], bool]:
    """Return whether a file begins with `start` and its head holds `word`."""
    return lambda file: (head := _head(file)).startswith(start) and word in head


def _is_leaf(file: Path) -> bool:
    """Return whether a JSON file begins as LEAF's do, with one of its keys."""
    return re.match(rb'\s*\{\s*"(users|num_samples|user_data|hierarchies)"\s*:', _head(file)) is not None


def _is_arff(file: Path) -> bool:
    """Return whether a text begins with @relation, perhaps after comments."""
    return re.match(rb"(\s*%[^\n]*\n|\s)*@relation\b", _head(file), re.IGNORECASE) is not None


def _zips(pattern: str) -> Callable[[Path], bool]:
    """Return whether a file is a zip whose first members' names fit a pattern."""

    def is_one(file: Path) -> bool:
        if not _head(file).startswith(b"PK\3\4"):
            return False
        try:
            with zipfile.ZipFile(file) as packed:
                names = [name for name in packed.namelist()[:MOST_FILES] if not name.endswith("/")]
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
            return False
        return bool(names) and any(re.fullmatch(pattern, name, re.IGNORECASE) for name in names)

    return is_one


NOT_IN_A_FOLDER = r"(?!)"  # its reader takes a file
_SQLITE = b"SQLite format 3\0"
_IMAGE = r"[^/]+\.(jpe?g|png|bmp|gif|webp|tiff?|ppm|pgm)"
_ZIPPED_IMAGES = _zips(rf"(.*/)?{_IMAGE}")
_DATABASE = r"[^/]+\.(sqlite3?|db)(\.lzma|\.xz)?"
_CIFAR = r"([^/]+/)?(data_batch_\d(\.bin)?|test_batch(\.bin)?)|([^/]+/)?(train|test)\.bin|cifar-100-python/(train|test)|train|test"


def _is_cifar(file: Path) -> bool:
    """Return whether a file is a batch of CIFAR: a pickle, or whole rows of a label or two and an image."""
    size = file.stat().st_size
    return _head(file).startswith(b"\x80") or size > 0 and 0 in (size % 3073, size % 3074)


def _is_image(file: Path) -> bool:
    """Return whether a file is named as images are, or a zip of images."""
    return re.fullmatch(_IMAGE, file.name, re.IGNORECASE) is not None or _ZIPPED_IMAGES(file)


FORMATS = (
    _Format("store", r"store\.json", "the table of contents of a store"),
    _Format("leaf", r"((train|test)/)?[^/]+\.json", "a shard of LEAF", _is_leaf),
    _Format("mnist", r"(([^/]+/)?raw/)?([^/]*-)?(train|t10k|test)-(images|labels)[-.]idx\d-ubyte(\.gz)?", "one of MNIST's idx files"),
    _Format("cifar", _CIFAR, "a batch of CIFAR", _is_cifar),
    _Format("pfllib", r"(train|test)/\d+\.npz", "one of PFLlib's clients", _zips(r"[^/]+\.npy")),
    _Format("tff_hdf5", r"[^/]+\.(h5|hdf5)", "an HDF5 file", _begins(b"\x89HDF\r\n\x1a\n"), 1),
    _Format("tff_sqlite", _DATABASE, "a database of tf.train.Examples", _holds(_SQLITE, b"serialized_example_proto"), 1),
    _Format("fedjax_sqlite", _DATABASE, "a database of FedJAX", _holds(_SQLITE, b"federated_data"), 1),
    _Format("npz", NOT_IN_A_FOLDER, "a NumPy archive", _zips(r"[^/]+\.npy"), 1),
    _Format("arrow", r"([^/]+/){0,2}[^/]+\.arrow", "an Arrow file", _begins(b"ARROW1", b"\xff\xff\xff\xff"), 1),
    _Format("parquet", r"([^/]+/){0,2}[^/]+\.parquet", "a Parquet file", _begins(b"PAR1"), 1),
    _Format("arff", r"[^/]+\.arff", "an ARFF table", _is_arff, 1),
    _Format("csv", r"[^/]+\.(csv|tsv)(\.gz)?", "a table", None, 1),
    _Format("images", rf"([^/]+/){{1,3}}{_IMAGE}", "an image, or a zip of images", _is_image, 1),
    _Format("text", r"(?!readme|licen[cs]e)[^/]+\.txt(\.gz)?", "text", None, 2),
)
