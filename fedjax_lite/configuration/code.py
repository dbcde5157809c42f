"""The user's own code: a function that a configuration names as "mine.py:my_rule" or "package.module:my_rule"."""

import functools
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.table import Config, Table

__all__ = ["check_unchanged", "fingerprints", "function_of", "is_code", "line_in_code"]

CODE = re.compile(r"(?P<file>[^:]+\.py|[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")
PREFIX = "of_a_configuration."  # starts the name of a module that is loaded from a file


def is_code(name: Any) -> bool:
    """Return whether `name` is the name of a function in a file or a module.

    >>> is_code("mine.py:my_rule"), is_code("package.module:my_rule"), is_code("trimmed_mean"), is_code("mine.py:")
    (True, True, False, False)
    """
    return isinstance(name, str) and CODE.fullmatch(name) is not None


def function_of(table: Table) -> Callable:
    """Load the function that a text names, from a file or module in the folder where the text was written.

    Raises:
        ConfigError: for code that cannot be read or run, and for a name that is no function there.
    """
    module, name = _module_of(table), table.value.rpartition(":")[2]
    function = getattr(module, name, None)
    if not isinstance(function, types.FunctionType):
        known = [
            key for key, value in vars(module).items() if isinstance(value, types.FunctionType) and value.__module__ == module.__name__
        ]
        problem = "is no function" if hasattr(module, name) else "is not"
        raise table.error(
            f"{name!r} {problem} in {table.value.rpartition(':')[0]}{nearest(name, known)}; there are {', '.join(known) or 'none'}"
        )
    return function


def fingerprints(config: Config) -> dict[str, str]:
    """Return the hash of each file of code that a configuration names, by the text that names a function in the file."""
    code = [each for each in config.at().texts() if is_code(each.value)]
    return {each.value: _hash(Path(_module_of(each).__file__ or "")) for each in code}


def check_unchanged(config: Config) -> None:
    """Refuse code whose hash differs from the hash in the table [code], which a finished run's configuration has.

    Raises:
        ConfigError: naming the file.
    """
    hashes = fingerprints(config)
    for name, fingerprint in config.values.get("code", {}).items():
        if hashes.get(name) != fingerprint:
            raise config.error(("code", name), "is no longer the code that this was run with: leave [code] out to run what it is now")


def line_in_code(error: BaseException) -> str:
    """Return file and line of the last frame of an error that lies in the user's code; "" if no frame does."""
    frames = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    lines = [f"{Path(file).name}:{line}" for name, file, line in frames if name.startswith(PREFIX) or name in _imported]
    return lines[-1] if lines else ""


_imported: set[str] = set()  # modules that configurations named


def _module_of(table: Table) -> types.ModuleType:
    """Load the module that a text names, only once as long as its file stays the same."""
    name = table.value.rpartition(":")[0]
    folder = table.config.origin(table.path).folder.absolute()
    with _looked_for_in(folder if not name.endswith(".py") else Table(table.config, table.path, name).file().absolute().parent):
        try:
            if not name.endswith(".py"):
                _imported.add(name)
                return importlib.import_module(name)
            file = Table(table.config, table.path, name).file().absolute()
            return _loaded(file, _hash(file))
        except OSError as error:
            raise table.error(f"cannot read {name}: {error.strerror}") from None
        except SyntaxError as error:
            raise table.error(f"{name}:{error.lineno}: {error.msg}") from error
        except Exception as error:
            where = line_in_code(error)
            raise table.error(f"{where and where + ': '}{type(error).__name__}: {error}") from error


@functools.cache
def _loaded(file: Path, fingerprint: str) -> types.ModuleType:
    """Load the module in a file; cached by the file's hash, so that a changed file is loaded anew."""
    name = f"{PREFIX}{file.stem}_{fingerprint}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _hash(file: Path) -> str:
    """Return 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@contextmanager
def _looked_for_in(folder: Path) -> Iterator[None]:
    """Put a folder in front of the folders where Python looks for modules."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
