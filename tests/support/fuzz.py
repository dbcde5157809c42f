"""Damage the files of a data set, and see that what reads them says so, runs nothing and takes no room that the files do not have."""

import resource
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fedjax_lite.data import DataError

BOASTS = [
    (2**bits - 1).to_bytes(size, order)
    for size, bits in ((1, 8), (2, 16), (4, 31), (4, 32), (8, 40), (8, 63))
    for order in ("big", "little")
]
MOST_ROOM, LONGEST = 2**30, 2000  # bytes, characters of an error


def fuzz(reader: Callable[[Path], Any], write_valid: Callable[[Path], Any], examples: int) -> None:
    """Read a valid data set, then `examples` damaged ones.

    Args:
        reader: reads a folder. For what is packed, let `write_valid` write what is inside, and `reader` pack it and read it.
        write_valid: writes small valid files into an empty folder.
        examples: tries; each flips, overwrites, cuts out, doubles or inserts bytes of one of the files, once or up to three times.

    A try must succeed, or raise a DataError that names a path in the folder, or a FileNotFoundError; anything else fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_valid(folder)
        reader(folder)
        files = {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(st.sampled_from(sorted(files)), st.lists(EDITS, min_size=1, max_size=3))
        def attempt(file: Path, edits: list) -> None:
            data = files[file]
            for edit in edits:
                data = edited(data, *edit)
            try:
                file.write_bytes(data)
                _read(reader, folder)
            finally:
                file.write_bytes(files[file])

        with within_room():
            attempt()


@contextmanager
def within_room() -> Iterator[None]:
    """Refuse the process, C libraries too, more than `MOST_ROOM` beyond what it has: what asks for more fails with a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _read(reader: Callable[[Path], Any], folder: Path) -> None:
    """Read a folder that may be damaged."""
    try:
        reader(folder)
    except DataError as error:
        assert str(folder) in str(error) and len(str(error)) < LONGEST, str(error)[:LONGEST]
    except FileNotFoundError:
        pass


@contextmanager
def taking_at_most(most: int) -> Iterator[None]:
    """Fail if Python and NumPy take more than `most` bytes at once."""
    tracemalloc.start()
    try:
        yield
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < most, f"{taken} bytes were taken"


def edited(data: bytes, kind: str, place: float, length: int, new: bytes) -> bytes:
    """Return changed bytes; `place` is a share of the length."""
    start = int(place * len(data))
    end = min(start + length, len(data))
    part = data[start:end]
    changed = {
        "flip": bytes(byte ^ (1 << length % 8) for byte in part[:1]) + part[1:],
        "overwrite": new[: max(1, len(part))],
        "remove": b"",
        "double": part * 2,
        "insert": new + part,
        "end": part,
    }[kind]
    return data[:start] + changed + (b"" if kind == "end" else data[end:])


EDITS = st.tuples(
    st.sampled_from(["flip", "flip", "overwrite", "overwrite", "remove", "double", "insert", "end"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 64),
    st.one_of(st.sampled_from(BOASTS), st.binary(min_size=1, max_size=8)),
)
