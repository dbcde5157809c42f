"""Folders and files of runs and studies: check a folder, move an old run aside, write text whole or not at all."""

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedjax_lite.refuse import short

__all__ = [
    "DATA_PAGE",
    "append",
    "check_room",
    "holds",
    "move_aside",
    "read_or_empty",
    "read_whole",
    "replacing",
    "resolve_folder",
    "toml_text",
    "write",
]

DATA_PAGE = "data.html"  # what `fedjax-lite data` writes into the folder of a run to come
RUN, STUDY = ("metrics.jsonl", "summary.json", "checkpoints"), ("study.json", "unfinished")  # one of these in a folder marks its kind
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # invisible, or changes the direction of text


def resolve_folder(out: Any) -> Path:
    """Resolve `out` to an absolute path without links, which a later change of directory leaves right.

    Raises:
        ValueError: if `out` names no folder.
    """
    if not isinstance(out, str | os.PathLike):
        raise ValueError(f"out must be the path of a folder, got {out!r}")
    text = os.fspath(out)
    if not isinstance(text, str) or not text or CONTROL.search(text):
        raise ValueError(f"out={out!r} has characters that no folder's name should have, or none: name another folder")
    try:
        text.encode()
        place = Path(text).expanduser().resolve()
    except UnicodeEncodeError:
        raise ValueError(f"out={out!r} is not UTF-8: name another folder, or set a locale whose names are, such as C.UTF-8") from None
    except (OSError, RuntimeError) as error:  # links that go in a circle
        raise ValueError(f"out={out} cannot be found ({error}): name another folder") from None
    if not place.name:
        raise ValueError(f"out={out} is the root of the file system: name a folder in it")
    return place


def holds(folder: Path) -> str:
    """Return "run" or "study" if `folder` holds at least a part of a run or study, else ""."""
    return next((kind for kind, names in (("run", RUN), ("study", STUDY)) if any((folder / name).exists() for name in names)), "")


def check_room(out: Any, resume: bool = False) -> Path:
    """Check that `out` can be written and holds no files but a run's or a study's; return its absolute path.

    Raises:
        ValueError: if `out` is a file, holds other files, can't be written, or must be moved aside and contains the current directory.
    """
    place = resolve_folder(out)
    try:
        if place.exists() and not place.is_dir():
            raise ValueError(f"out={out} is a file: name a folder")
        _try(place)
        if resume or not place.exists() or all(each.name == DATA_PAGE for each in place.iterdir()):
            return place
    except OSError as error:
        raise ValueError(f"out={out} cannot be made or written: {error.strerror}; name another folder") from None
    if not holds(place):
        raise ValueError(f"out={out} is not empty and holds no run or study: name another folder")
    if Path.cwd().is_relative_to(place):
        raise ValueError(
            f"out={out} is the directory you are in, or above it, and holds a {holds(place)}, which would have to be moved aside: "
            "go on with it (resume), or name another folder"
        )
    return place


def _try(folder: Path) -> None:
    """Make `folder`, write a file in and beside it, then remove both files and all folders made."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, folder.parent):
            tempfile.TemporaryFile(dir=place).close()
    finally:
        for each in missing:
            with suppress(OSError):  # not made, or another process has begun to use it
                each.rmdir()


def move_aside(place: Path, status: str = "") -> None:
    """Rename a run or study at `place` to the first free `place`.1, .2 ..., so that the newest has the plain name."""
    if not (kind := holds(place)):
        return
    number = 1
    while (aside := place.with_name(f"{place.name}.{number}")).exists():
        number += 1
    print(f"{place} held a {kind}{f' (status {status})' if kind == 'run' and status else ''}: moved to {aside}", file=sys.stderr)
    place.rename(aside)


def toml_text(values: Mapping[str, Any]) -> str:
    """Write `values` as TOML text, each list of plain values on one line.

    >>> print(toml_text({"hidden": [200, 200]}), end="")
    hidden = [200, 200]
    """
    import tomli_w

    return re.sub(
        r"\[\n((?: *[^\[\]{}\n]+,\n)+) *\]",
        lambda match: f"[{' '.join(line.strip() for line in match[1].splitlines())[:-1]}]",
        tomli_w.dumps(values),
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path with a random name beside `path`, for the caller to write; at the end that file replaces `path`."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    with replacing(path) as temporary, open(temporary, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_whole(path: Path, parse: Callable[[str], Any], kind: type) -> Any:
    """Read a file that holds a value of this kind, an empty one where there is no file.

    Raises:
        ValueError: for a file that is damaged.
    """
    try:
        found = parse(path.read_text(encoding="utf-8")) if path.exists() else kind()
        if isinstance(found, kind):
            return found
        wrong = f"it holds no {kind.__name__}"
    except (OSError, ValueError, RecursionError) as error:
        wrong = short(error)
    raise ValueError(f"{path} is damaged ({wrong}): resume the run, which writes it anew")


def read_or_empty(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Read a file of settings or facts; an empty dict where the file is absent or damaged."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def append(path: Path, text: str) -> None:
    """Append `text` to a file, and return when the text is on disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
