"""The files in a zip, none of which leaves it, is a link, or unpacks without bound."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.text_pieces import refuse_expansion

__all__ = ["members"]

_LARGEST = 2**28  # bytes of one file


def members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each file in a zip, sorted, and a function that reads it.

    Raises:
        DataError: naming the file: no zip, damaged, encrypted, a link, a name that leads out of it, too large.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is neither a folder nor a whole zip ({error}): copy it again") from None
    total = 0
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        name = info.filename
        if name.endswith("/"):
            continue
        if not name or info.compress_size > path.stat().st_size:
            raise DataError(f"{path}: the entry of {name!r} says {info.compress_size:,} bytes: the zip is damaged, copy it again")
        if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise DataError(f"{path}: {name!r} leads out of the zip: pack it again")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{path}: {name} is a link: pack the file itself")
        if info.flag_bits & 1:
            raise DataError(f"{path}: {name} is encrypted: pack it without a password")
        total += info.file_size
        refuse_expansion(path, path.stat().st_size, total)
        if info.file_size > _LARGEST:
            raise DataError(f"{path}: {name} unpacks to {info.file_size:,} bytes: no file may be larger than {_LARGEST:,}")
        yield name, partial(_read, archive, path, info)


def _read(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> bytes:
    """Read one file."""
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: {info.filename} cannot be unpacked ({error}): the zip is damaged, copy it again") from None
