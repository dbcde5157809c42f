"""Read tables of SQLite files that may be damaged or made to harm: rows of real tables alone, and no more than a file holds."""

import lzma
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.reading import reading, room, within

_AT_ONCE, _MOST_MEMORY = 2**20, 2**27  # bytes unpacked at a time; bytes that unpacking may take, twice what xz -9 needs


def read_table(file: Path, table: str, columns: tuple[str, ...]) -> Iterator[tuple]:
    """Yield the rows of a table in their order, text as bytes; the file may be packed (.lzma, .xz)."""
    with reading(file, sqlite3.Error, OverflowError, MemoryError, lzma.LZMAError, EOFError), _plain(file) as plain:
        left = plain.stat().st_size
        with closing(sqlite3.connect(f"{plain.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.text_factory = bytes
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(left, 1000))  # no value can be longer than the file
            _check_table(database, table, columns)
            for row in database.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid"):
                left -= 1 + sum(len(value) for value in row if isinstance(value, bytes))
                if left < 0:
                    raise DataError(f"the table {table} yields more than the file holds: it is damaged")
                yield row


def _check_table(database: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> None:
    """Refuse a table that is missing, that a query makes, or that has columns which are computed."""
    found = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    if found is None or found[0] != b"table" or not bytes(found[1] or b"").upper().startswith(b"CREATE TABLE"):
        raise DataError(f"there is no table {table!r}: it is another format")
    held = {bytes(name).decode(): hidden for _, name, *_, hidden in database.execute(f"PRAGMA table_xinfo({table})")}
    for column in columns:
        if held.get(column) != 0:
            raise DataError(f"the table {table!r} has no column {column!r} with values: it is another format")


@contextmanager
def _plain(file: Path) -> Iterator[Path]:
    """Give the file, unpacked to a temporary one where it is packed."""
    if file.suffix not in (".lzma", ".xz"):
        yield file
        return
    with tempfile.TemporaryDirectory() as name:
        plain, most, written = Path(name) / file.stem, room(file), 0
        unpack = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
        with open(file, "rb") as packed, open(plain, "wb") as out:
            while not unpack.eof:
                more = packed.read(_AT_ONCE) if unpack.needs_input else b""
                if unpack.needs_input and not more:
                    raise EOFError("it ends within its packed data")
                data = unpack.decompress(more, _AT_ONCE)
                written = within(most, written + len(data), "it")
                out.write(data)
        yield plain
