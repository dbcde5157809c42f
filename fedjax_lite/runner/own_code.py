"""Load the user's own code: a module in a file, or one by its name, only once as long as its file stays the same."""

import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["hash_of", "is_own", "module_in"]

PREFIX = "of_a_configuration."  # starts the name of a module that is loaded from a file

_imported: dict[str, str] = {}  # module that was imported by its name -> the hash of its file at that time


def module_in(name: str, folder: Path, sha256: str | None = None) -> types.ModuleType:
    """Load a module: "mine.py", a file whose relative path starts in `folder`, or "package.module", from `folder` if it is there.

    Args:
        sha256: the hash that its file must have, looked at before a file is run; None for any.

    Raises:
        Exception: whatever the code raises; an OSError for a file that cannot be read, a ValueError for one of another hash.
    """
    if not name.endswith(".py"):
        module = _named(name, folder.absolute())
        _check(Path(module.__file__ or ""), sha256)
        return module
    file = (folder / Path(name).expanduser()).absolute()
    _check(file, sha256)
    return _loaded(file, _digest(file))


def _check(file: Path, sha256: str | None) -> None:
    """Refuse a file of another hash."""
    if sha256 is not None and _digest(file) != sha256:
        raise ValueError(f"{file} is no longer what it was")


def hash_of(module: types.ModuleType) -> str:
    """Return 16 hex digits of the SHA-256 of a module's file."""
    return _digest(Path(module.__file__ or ""))


def is_own(name: str) -> bool:
    """Return whether `module_in` has loaded the module of this name.

    >>> is_own("fedjax_lite.runner.own_code")
    False
    """
    return name.startswith(PREFIX) or name in _imported


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


def _named(name: str, folder: Path) -> types.ModuleType:
    """Import a module, from `folder` if it is there; anew if the one imported before has another file or hash."""
    first = importlib.machinery.PathFinder.find_spec(name.partition(".")[0], [str(folder)])
    before = sys.modules.get(name)
    if before is not None and first is not None:
        here = Path(before.__file__ or "").is_relative_to(folder)
        if not here or _imported.get(name) != _digest(Path(before.__file__ or "")):
            for known in [known for known in sys.modules if known.partition(".")[0] == name.partition(".")[0]]:
                del sys.modules[known]
    loaded = set(sys.modules)
    with _looked_for_in(folder):
        module = importlib.import_module(name)
    _forget_beside(name.partition(".")[0], loaded, folder)
    _imported[name] = _digest(Path(module.__file__ or ""))
    return module


def _forget_beside(name: str, known: set[str], folder: Path) -> None:
    """Forget modules of `folder` that were imported beside `name`: another folder may have others of their names."""
    for beside in sys.modules.keys() - known:
        file = getattr(sys.modules[beside], "__file__", None)
        if beside != name and not beside.startswith(f"{name}.") and file and Path(file).is_relative_to(folder):
            del sys.modules[beside]


def _digest(file: Path) -> str:
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
