"""Keep what took long to read as stores on disk, found again by the files and the arguments that it was read from."""

import hashlib
import inspect
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache as once
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.partition.parts import By
from fedjax_lite.data.save import save
from fedjax_lite.data.store import Store
from fedjax_lite.data.train_test import TrainTest

__all__ = ["cached"]

SECONDS = 2.0  # "auto" keeps what took longer
FOLDER = ".fedjax_lite"  # beside the files


def cached(
    reader: Callable[..., TrainTest], path: str | os.PathLike | Sequence[str | os.PathLike], *, cache: Any = "auto", **arguments: Any
) -> TrainTest:
    """What a reader makes of a path, from the cache where it is there.

    An entry is found by the files' paths, sizes and times of change (to the nanosecond), the reader, its arguments with the seed and the
    partition, and the code of `fl.data`. A file whose content changes while its size and its time stay is not noticed. Folders may be
    deleted at any time; a damaged entry is, with a warning, and the files are read anew. Two processes may write one entry at once.

    Args:
        reader: a function of `fl.data` such as `fl.data.leaf`.
        path: the file or folder that it reads, or several where it takes several.
        cache: "auto": what took more than 2 seconds is kept in a hidden folder beside `path`, or in `~/.cache/fedjax_lite` where
            that cannot be written, or, if it is set, in the folder that FEDJAX_LITE_CACHE names. A folder: everything is kept there.
            None: nothing is.
        arguments: of the reader.

    Returns:
        What the reader returns, in memory and the same to the bit.

    Raises:
        ValueError: an argument that cannot be told from others, such as a function of your own, with a folder as the cache.
        OSError: a folder that cannot be written.

    >>> import json, pathlib, tempfile, fedjax_lite as fl
    >>> shard = {"users": ["ann"], "num_samples": [2], "user_data": {"ann": {"x": [[0.0], [1.0]], "y": [0, 1]}}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "shard.json").write_text(json.dumps(shard))
    ...     first, again = (cached(fl.data.leaf, folder, cache=folder + "/.kept", test=0) for _ in range(2))
    >>> first.train.fingerprint() == again.train.fingerprint()
    True
    """
    paths = [Path(each).expanduser() for each in ([path] if isinstance(path, str | os.PathLike) else path)]
    if cache is None or not paths:
        return reader(path, **arguments)
    try:
        key = _key(reader, paths, arguments)
    except ValueError as error:
        if cache != "auto":
            raise ValueError(f"cache: {error}: leave cache out") from None
        return reader(path, **arguments)
    folders = _folders(paths[0], cache)
    for folder in folders:
        if (found := _read(folder / key)) is not None:
            return found
    started = time.perf_counter()
    made = reader(path, **arguments)
    kept = isinstance(made, TrainTest) and isinstance(made.train, FederatedData)
    if kept and (cache != "auto" or time.perf_counter() - started > SECONDS):
        _write(folders, key, made, must=cache != "auto")
    return made


def _folders(path: Path, cache: Any) -> list[Path]:
    """Return the folders that may hold entries, the first that can be written preferred."""
    if cache != "auto":
        return [Path(cache).expanduser()]
    if named := os.environ.get("FEDJAX_LITE_CACHE"):
        return [Path(named).expanduser()]
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return [path.absolute().parent / FOLDER, home / "fedjax_lite"]


def _read(entry: Path) -> TrainTest | None:
    """Return the data of an entry; None where there is none, or after a damaged one is thrown away."""
    if not entry.is_dir():
        return None
    try:
        train, test = (Store.open(entry / part) if (entry / part).exists() else None for part in ("train", "test"))
        if train is None:
            raise FileNotFoundError(f"{entry} has no training part")
        return TrainTest(train.in_memory(), None if test is None else test.in_memory())
    except (ValueError, OSError) as error:
        warnings.warn(f"what the cache held is damaged, and read anew ({error})", stacklevel=4)
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _write(folders: list[Path], key: str, data: TrainTest, must: bool) -> None:
    """Write an entry into the first folder that can be written, whole or not at all; raise if none can and an entry `must` be."""
    refused: Exception | None = None
    for folder in folders:
        partial = folder / f"{key}.{secrets.token_hex(4)}.partial"
        try:
            for name, part in data._asdict().items():
                if part is not None:
                    save(partial / name, part)
            partial.rename(folder / key)
            return
        except (OSError, ValueError) as error:
            if (folder / key).is_dir():  # another process was sooner
                return
            refused = error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    if must and refused:
        raise refused


def _key(reader: Callable[..., Any], paths: Sequence[Path], arguments: dict[str, Any]) -> str:
    """Return an entry's name: that of the first path, and a hash of all that its data depend on."""
    told = {name: _told(name, value) for name, value in sorted(arguments.items())}
    facts = [_code(), jax.config.read("jax_enable_x64"), _told("reader", reader), [*map(_fingerprint, paths)], told]
    return f"{paths[0].absolute().name}.{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]}"


@once
def _code() -> str:
    """Return a hash of the modules that read, deal and save data."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def _told(name: str, value: Any) -> Any:
    """Describe an argument so that other values read otherwise; a function of this package by its name and what it closes over.

    Raises:
        ValueError: for a value that cannot be described.
    """
    if isinstance(value, os.PathLike) or isinstance(value, str) and os.path.exists(value):
        return [str(value), _fingerprint(Path(value).expanduser())]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.asarray(value).dtype.kind in "biufU":
        return [str(np.asarray(value).dtype), np.asarray(value).tolist()]
    if isinstance(value, list | tuple):
        return [_told(name, each) for each in value]
    if isinstance(value, dict):
        return [[_told(name, key), _told(name, each)] for key, each in value.items()]
    if isinstance(value, By):
        return ["by", value.leaf, _told(name, value.partition)]
    if inspect.isfunction(value) and value.__module__.split(".")[0] == "fedjax_lite":
        value = inspect.unwrap(value)
        inside = inspect.getclosurevars(value).nonlocals
        return [f"{value.__module__}.{value.__qualname__}", [[key, _told(name, each)] for key, each in sorted(inside.items())]]
    raise ValueError(f"{name} is a {type(value).__name__} of your own, of which the cache can't tell whether it has changed")


def _fingerprint(path: Path) -> list[Any]:
    """Return the path, size and time of change of a file, or of every file below a folder but those of caches."""
    files: list[Path] = [path] if path.is_file() else sorted(_below(path))
    return [str(path.absolute()), [[each.relative_to(path).as_posix(), (stat := each.stat()).st_size, stat.st_mtime_ns] for each in files]]


def _below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, and in folders that links lead to, except hidden folders."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        known = len(seen)
        seen.add(os.path.realpath(here))
        folders[:] = [name for name in folders if not name.startswith(".")] if len(seen) > known else []  # a link may lead back
        yield from (file for name in files if (file := Path(here) / name).exists())  # a link may lead nowhere
