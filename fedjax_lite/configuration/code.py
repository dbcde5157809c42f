"""The user's own code: a function that a configuration names as "mine.py:my_rule" or "package.module:my_rule"."""

import re
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.table import Config, ConfigError, Table
from fedjax_lite.runner.own_code import hash_of, is_own, module_in

__all__ = ["check_unchanged", "fingerprints", "function_of", "is_code", "line_in_code", "place_of"]

CODE = re.compile(r"(?P<file>[^:]+\.py|[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")


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
    return {each.value: hash_of(_module_of(each)) for each in code}


def place_of(table: Table) -> dict[str, str]:
    """Return the folder where the code that a text names is looked for, and the hash of its file."""
    return {"folder": str(table.config.origin(table.path).folder.absolute()), "sha256": hash_of(_module_of(table))}


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
    lines = [f"{Path(file).name}:{line}" for name, file, line in frames if is_own(name)]
    return lines[-1] if lines else ""


def _module_of(table: Table) -> types.ModuleType:
    """Load the module that a text names, only once as long as its file stays the same."""
    name = table.value.rpartition(":")[0]
    try:
        if name.endswith(".py"):
            name = str(Table(table.config, table.path, name).file())
        return module_in(name, table.config.origin(table.path).folder)
    except ConfigError:  # of the home of nobody
        raise
    except OSError as error:
        raise table.error(f"cannot read {table.value.rpartition(':')[0]}: {error.strerror}") from None
    except SyntaxError as error:
        place = Path(error.filename).name if error.filename else name
        raise table.error(f"{place}{f':{error.lineno}' if error.lineno else ''}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        where, message = line_in_code(error), f"{type(error).__name__}: {error}".split("\n")[0].removesuffix(": ")
        raise table.error(f"{where and where + ': '}{message}") from error
