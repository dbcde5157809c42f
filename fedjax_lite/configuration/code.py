"""The user's own code: a function that a configuration names as "mine.py:my_rule" or "package.module:my_rule"."""

import functools
import hashlib
import importlib
import importlib.machinery
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
from fedjax_lite.configuration.table import Config, ConfigError, Table

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
    code = [each for each in config.at().texts() if is_code(each.value) and each.path[-1] not in ("path", "test")]
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


_imported: dict[str, str] = {}  # module that a configuration named -> the hash of its file when it was imported


def _module_of(table: Table) -> types.ModuleType:
    """Load the module that a text names, only once as long as its file stays the same."""
    name = table.value.rpartition(":")[0]
    try:
        if name.endswith(".py"):
            file = Table(table.config, table.path, name).file().absolute()
            return _loaded(file, _hash(file))
        return _import(name, table.config.origin(table.path).folder.absolute())
    except ConfigError:  # of the home of nobody
        raise
    except OSError as error:
        raise table.error(f"cannot read {name}: {error.strerror}") from None
    except SyntaxError as error:
        place = Path(error.filename).name if error.filename else name
        raise table.error(f"{place}{f':{error.lineno}' if error.lineno else ''}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        where, message = line_in_code(error), f"{type(error).__name__}: {error}".split("\n")[0].removesuffix(": ")
        raise table.error(f"{where and where + ': '}{message}") from error


@functools.cache
def _loaded(file: Path, fingerprint: str) -> types.ModuleType:
    """Load the module in a file; cached by the file's hash, so that a changed file is loaded anew."""
    name = f"{PREFIX}{file.stem}_{fingerprint}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    known, module = set(sys.modules), importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _looked_for_in(file.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _forget_beside(name, known, file.parent)
    return module


def _import(name: str, folder: Path) -> types.ModuleType:
    """Import a module, from `folder` if it is there; anew if the one imported before has another file or hash."""
    first = importlib.machinery.PathFinder.find_spec(name.partition(".")[0], [str(folder)])
    before = sys.modules.get(name)
    if before is not None and first is not None:
        here = Path(before.__file__ or "").is_relative_to(folder)
        if not here or _imported.get(name) != _hash(Path(before.__file__ or "")):
            for known in [known for known in sys.modules if known.partition(".")[0] == name.partition(".")[0]]:
                del sys.modules[known]
    loaded = set(sys.modules)
    with _looked_for_in(folder):
        module = importlib.import_module(name)
    _forget_beside(name.partition(".")[0], loaded, folder)
    _imported[name] = _hash(Path(module.__file__ or ""))
    return module


def _forget_beside(name: str, known: set[str], folder: Path) -> None:
    """Forget modules of `folder` that were imported beside `name`: another folder may have others of their names."""
    for beside in sys.modules.keys() - known:
        file = getattr(sys.modules[beside], "__file__", None)
        if beside != name and not beside.startswith(f"{name}.") and file and Path(file).is_relative_to(folder):
            del sys.modules[beside]


def _hash(file: Path) -> str:
    """Return 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@contextmanager
def _looked_for_in(folder: Path) -> Iterator[None]:
    """Let Python look for modules in `folder` first."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
