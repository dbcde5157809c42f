"""Write a study as the text of study.json, and read the text back with every value checked."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_lite.refuse import short
from fedjax_lite.study.grid import Axis

NUMBER = "number"  # marks a label that JSON has no number for, {"number": "inf"}, since "inf" may be a text
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def text_of(fields: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """Write a study's fields, and its tables for other programs, as JSON; "nan", "inf" and "-inf" stand for floats that are not finite."""

    def label(value):
        return {NUMBER: str(value)} if isinstance(value, float) and not math.isfinite(value) else value

    results = fields["results"]
    document = dict(fields) | {
        "axes": [{"names": axis.names, "rows": [[label(value) for value in row] for row in axis.rows]} for axis in fields["axes"]],
        "results": {metric: x.tolist() for metric, x in results.items()},
        "types": {metric: str(x.dtype) for metric, x in results.items()},
        "table": tables,
    }
    return json.dumps(_plain(document), allow_nan=False) + "\n"


def fields_of(path: Path) -> dict[str, Any]:
    """Read and check the fields of the study in a file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file holds no whole study; names the file and the place.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not the JSON of a study: {error}") from None
    try:
        return _fields(document)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _refused(token: str) -> None:
    """Refuse NaN and Infinity, which Python's reader would accept and JSON does not have."""
    raise ValueError(f"{token} is no number of JSON")


def _plain(value: Any) -> Any:
    """Replace floats that are not finite by texts, in nested dicts and lists."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _fields(document: Any) -> dict[str, Any]:
    """Check a study's document; return the fields of a `Study`."""
    document = _of(document, "the whole", dict)
    for name in ("axes", "seeds", "results", "types", "rounds", "programs", "lacking"):
        _check(name in document, name, "is missing")
    axes = tuple(_axis(axis, f"axes[{i}]") for i, axis in enumerate(_of(document["axes"], "axes", list)))
    names = [name for axis in axes for name in axis.names]
    _check(len(set(names)) == len(names), "axes", f"must have different names, got {names}")
    seeds = _wholes(document["seeds"], "seeds")
    _check(bool(seeds), "seeds", "must be one at least")
    shape = (*(len(axis.rows) for axis in axes), len(seeds))
    results = _of(document["results"], "results", dict)
    rounds = {name: _wholes(x, f"rounds.{name}") for name, x in _of(document["rounds"], "rounds", dict).items()}
    types = _of(document["types"], "types", dict)
    for name in (*rounds, *_of(document["lacking"], "lacking", dict)):
        _check(name in results, "results", f"has no {name!r}, which other parts have")
    _check(bool(results) and results.keys() == types.keys(), "types", "must be one for each of the results, which must be some")
    lacking = {name: _wholes(x, f"lacking.{name}", math.prod(shape[:-1])) for name, x in document["lacking"].items()}
    arrays = {
        name: _array(x, _type(types[name], f"types.{name}"), (*shape, len(rounds[name])) if name in rounds else shape, f"results.{name}")
        for name, x in results.items()
    }
    programs, made = _whole(document["programs"], "programs"), _of(document.get("made", {}), "made", dict)
    return {"axes": axes, "seeds": seeds, "results": arrays, "rounds": rounds, "programs": programs, "lacking": lacking, "made": made}


def _axis(value: Any, where: str) -> Axis:
    """Return the axis of a dict with names and rows."""
    value = _of(value, where, dict)
    names, rows = (tuple(_of(value.get(key), f"{where}.{key}", list)) for key in ("names", "rows"))
    _check(bool(names) and all(isinstance(name, str) for name in names), f"{where}.names", f"must be texts, got {short(repr(names), 60)}")
    _check(bool(rows), f"{where}.rows", "must be one at least")
    for i, row in enumerate(rows):
        _check(len(_of(row, f"{where}.rows[{i}]", list)) == len(names), f"{where}.rows[{i}]", f"must have a value for each of {names}")
    return Axis(names, tuple(tuple(_label(value, f"{where}.rows[{i}]") for value in row) for i, row in enumerate(rows)))


def _label(value: Any, where: str) -> Any:
    """Return a number or text of an axis's row."""
    if isinstance(value, dict) and list(value) == [NUMBER]:
        return _number(value[NUMBER], where)
    _check(isinstance(value, str | int | float), where, f"must hold numbers and texts, got {short(repr(value), 60)}")
    return value


def _array(value: Any, kind: np.dtype, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Turn nested lists into an array of `shape` and dtype `kind`; refuse a number that `kind` does not have."""
    flat: list[Any] = []

    def walk(value, depth, where):
        if depth == len(shape):
            flat.append(_number(value, where))
            return
        _check(len(_of(value, where, list)) == shape[depth], where, f"must have {shape[depth]} values, got {len(value)}")
        for i, each in enumerate(value):
            walk(each, depth + 1, f"{where}[{i}]")

    walk(value, 0, where)
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            array = np.asarray(flat).astype(kind)
            same = np.isfinite(array.astype(float)) == np.isfinite(np.asarray(flat, float))
        except (OverflowError, TypeError, ValueError):
            same = np.asarray(False)
    _check(
        bool(same.all()) and (jnp.issubdtype(kind, jnp.floating) or (array == np.asarray(flat)).all()), where, f"must be of the type {kind}"
    )
    return array.reshape(shape)


def _number(value: Any, where: str) -> Any:
    """Return a number, or the float that "nan", "inf" or "-inf" stands for."""
    known = isinstance(value, str) and value in NOT_FINITE
    _check(known or isinstance(value, int | float), where, f'must be a number, "nan", "inf" or "-inf", got {short(repr(value), 60)}')
    return NOT_FINITE[value] if known else value


def _type(name: Any, where: str) -> np.dtype:
    """Return the dtype of bools, integers or floats called `name`."""
    known = isinstance(name, str) and bool(re.fullmatch(r"bool|u?int\d+|b?float\d+(_\w+)?", name)) and hasattr(jnp, name)
    _check(known, where, f"must be a type of numbers, such as float32, got {short(repr(name), 60)}")
    return np.dtype(name)


def _wholes(value: Any, where: str, below: int | None = None) -> tuple[int, ...]:
    """Return a list of whole numbers from 0 on as a tuple."""
    return tuple(_whole(each, f"{where}[{i}]", below) for i, each in enumerate(_of(value, where, list)))


def _whole(value: Any, where: str, below: int | None = None) -> int:
    """Return `value` if it is a whole number from 0 on, and below `below`."""
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < (below or 2**63)
    _check(good, where, f"must be a whole number from 0 on{f' and below {below}' if below else ''}, got {short(repr(value), 60)}")
    return value


def _of(value: Any, where: str, kind: type) -> Any:
    """Return `value` if it is a `kind`, dict or list."""
    _check(isinstance(value, kind), where, f"must be a {'table' if kind is dict else 'list'}, got {short(repr(value), 60)}")
    return value


def _check(good: Any, where: str, wanted: str) -> None:
    """Raise a ValueError that names the place in the document, unless `good`."""
    if not good:
        raise ValueError(f"{where} {wanted}")
