"""Describe the functions and numbers that a run's results depend on, so that a resumed run can be compared with its checkpoint."""

import functools
import hashlib
import inspect
import math
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.clock.table import Arrivals
from fedjax_lite.engine import Engine
from fedjax_lite.refuse import short
from fedjax_lite.tree import is_key

__all__ = ["first_difference", "parts_of", "sketch"]

LIBRARIES = ("fedjax_lite", "jax", "optax", "flax", "numpy", "functools")  # compared by name, since versions are recorded
FINER = 1.1  # a table of arrivals is described up to rows whose numbers grow by this factor
BEGINS = "begins"  # the key of a table's description
PLAIN = (int, float, str, bool, type(None), np.generic)


def sketch(tree: Tree) -> dict[str, Any]:
    """Describe each leaf of a model by its norm and a projection over the norm, which rounding on another device hardly moves.

    >>> sketch({"w": np.array([3.0, 4.0], np.float32)})
    {"['w'] float32[2]": {'about': [5.0, 1.0322418446945119]}}
    """
    return {f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}": _about(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def parts_of(**parts: Any) -> dict[str, Any]:
    """Describe functions by their names and the values that they close over, each value under the first path that reaches it.

    An engine is left out: engines place clients and do not change their results.

    >>> parts_of(sampler=functools.partial(max, 3))
    {'sampler.function': 'builtins.max', 'sampler.0': 3}
    """
    described: dict[str, Any] = {}
    seen: dict[int, tuple[str, Any]] = {}  # id() -> path and value; values are held, so that no id() is used again
    stack = [(name, value) for name, value in reversed(parts.items())]
    while stack:
        path, value = stack.pop()
        if isinstance(value, PLAIN):
            described[path] = value.item() if isinstance(value, np.generic) else value
        elif path in parts and id(value) in seen:
            described[path] = f"as {seen[id(value)][0]}"
        elif id(value) not in seen and not isinstance(value, Engine):
            seen[id(value)] = path, value
            name, inner = _opened(value)
            if name is not None:
                described[path if not inner else f"{path}.function" if callable(value) else f"{path}.class"] = name
            stack.extend((f"{path}.{key}", each) for key, each in reversed(inner))
    return described


def _opened(value: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Return the name of `value`, None where its contents alone matter, and the contents by name."""
    if isinstance(value, jax.Array | np.ndarray):
        few = value.size <= 16 and not is_key(value)
        return {f"{value.dtype}{list(value.shape)}": np.asarray(value).tolist() if few else _about(value)}, []
    if isinstance(value, functools.partial):
        return None, [("function", value.func), *((str(i), x) for i, x in enumerate(value.args)), *value.keywords.items()]
    if isinstance(value, types.MethodType):
        return None, [("self", value.__self__), ("function", value.__func__)]
    if isinstance(getattr(value, "arrivals", None), Arrivals):
        return _beginnings(value.arrivals), []
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if hasattr(value, "__wrapped__"):  # jitted, cached
        return None, [("function", value.__wrapped__)]
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", range(len(value)))
        return None, [(str(name), x) for name, x in zip(fields, value, strict=True)]
    if isinstance(value, list):
        return None, [(str(i), x) for i, x in enumerate(value)]
    if isinstance(value, dict):
        return None, [(str(key), x) for key, x in value.items()]
    if isinstance(value, type | types.ModuleType) or callable(value) and hasattr(value, "__qualname__"):
        return _name(value), []
    inner = getattr(value, "__dict__", {})
    return _name(type(value)), [(key, x) for key, x in inner.items() if not key.startswith("_")]


def _of_function(function: types.FunctionType) -> tuple[Any, list[tuple[str, Any]]]:
    """Describe a library's function by its name, a user's function also by its code and the numbers and functions among its globals.

    Lists, dicts and sets that a user's function closes over are left out: the function may use them to take notes.
    """
    if (function.__module__ or "").split(".")[0] in LIBRARIES:
        function = inspect.unwrap(function)  # a type checker may wrap the function in one process and not in another
        return _name(function), list(_closed_over(function))
    inner = list(_closed_over(function))
    code = function.__code__
    known = [(name, function.__globals__[name]) for name in code.co_names if name in function.__globals__]
    inner += [(name, x) for name, x in known if isinstance(x, (*PLAIN, jax.Array, np.ndarray, types.FunctionType))]
    return f"{_name(function)} {_hash_of(code)}", [(name, x) for name, x in inner if not isinstance(x, list | dict | set)]


def _beginnings(table: Arrivals) -> dict[str, Any]:
    """Describe the first rows of a table, for more and more rows: a run that is lengthened has a table that begins alike."""
    rows, done, found = len(table.ids), 0, {}
    columns = [np.ascontiguousarray(x) for x in (table.ids, table.ages, table.lost, table.too_old, table.tier)]
    digest = hashlib.sha256(str([x.shape[1:] for x in columns]).encode())
    ends = {math.floor(FINER**power) for power in range(math.ceil(math.log(rows, FINER)) + 1)}
    for end in sorted(end for end in ends if end <= rows):
        for column in columns:
            digest.update(column[done:end].astype(np.int64).tobytes())
        done, found[str(end)] = end, [digest.copy().hexdigest()[:8], {"about": [float(table.seconds[end - 1])]}]
    return {BEGINS: found}


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the names and values in a function's closure and among its defaults."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a variable that is not set yet
            pass
    defaults = inspect.signature(function).parameters.values()
    yield from ((p.name, p.default) for p in defaults if p.default is not p.empty)


def _hash_of(code: types.CodeType) -> str:
    """Hash bytecode, names and constants, of nested functions too."""

    def texts(code):
        yield code.co_code.hex()
        yield " ".join(code.co_names)
        for constant in code.co_consts:
            yield from texts(constant) if isinstance(constant, types.CodeType) else [repr(constant)]

    return hashlib.sha256("\n".join(texts(code)).encode()).hexdigest()[:8]


def _name(value: Any) -> str:
    """Return the module and qualified name of a function or class."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _about(x: Any) -> Any:
    """Describe an array of floats by the norm and one projection of its finite values, an array of another dtype by a hash."""
    x = np.asarray(jax.random.key_data(x) if is_key(x) else x)
    if not np.issubdtype(x.dtype, np.inexact) and x.dtype != jax.numpy.bfloat16:
        return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:8]
    flat = x.astype(np.float64).reshape(-1)
    finite = np.isfinite(flat)  # a link that takes no time has infinitely many bytes a second
    flat = np.where(finite, flat, 0)
    norm = float(np.linalg.norm(flat))
    return {"about": [norm, float(flat @ np.cos(np.arange(flat.size)) / (norm or 1)), *([] if finite.all() else [float((~finite).sum())])]}


def first_difference(saved: Any, current: Any, path: str = "") -> str:
    """Return the first key, in alphabetical order, at which two nested dicts or lists differ, with both values.

    Numbers under "about" were computed, perhaps on another device: they differ if rounding (1e-5) can't explain the difference.
    """
    if isinstance(saved, dict) and isinstance(current, dict) and saved.keys() == current.keys() == {"about"}:
        was, now = saved["about"], current["about"]
        near = len(was) == len(now) and all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5) for a, b in zip(was, now, strict=True))
        return "" if near else f"{path} was about {_shown(saved['about'])}, is now {_shown(current['about'])}"
    if isinstance(saved, dict) and isinstance(current, dict) and saved.keys() == current.keys() == {BEGINS}:
        both = sorted(saved[BEGINS].keys() & current[BEGINS].keys(), key=int)
        pairs = [(f"{path} of the first {rows} steps", saved[BEGINS][rows], current[BEGINS][rows]) for rows in both]
    elif isinstance(saved, dict) and isinstance(current, dict):
        pairs = [(f"{path}.{key}" if path else key, saved.get(key, _ABSENT), current.get(key, _ABSENT)) for key in sorted(saved | current)]
    elif isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(saved, current, strict=True))]
    else:
        same = saved == current or (saved != saved and current != current)  # here NaN equals NaN
        return "" if same else f"{path} was {_shown(saved)}, is now {_shown(current)}"
    return next(filter(None, (first_difference(a, b, key) for key, a, b in pairs)), "")


_ABSENT = object()


def _shown(value: Any) -> str:
    """Return `value` as at most 80 characters; "not set" for a key that one side lacks."""
    return "not set" if value is _ABSENT else short(repr(value), 80)
