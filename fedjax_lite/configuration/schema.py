"""Compare TOML's values with the annotations of a function's arguments."""

import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["describable", "described", "fits", "is_path", "parameters_of", "typed"]

WORDS = {float: "a number", int: "a whole number", str: "text", bool: "true or false", list: "a list", dict: "a table"}


def parameters_of(function: Callable) -> list[inspect.Parameter]:
    """Return a function's parameters that have a name; an annotation that Python cannot evaluate admits everything.

    >>> [p.name for p in parameters_of(lambda a, *b, c=1, **d: None)]
    ['a', 'c']
    """
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception:  # a name that is imported for type checkers alone, or a text that is no expression
        parameters = inspect.signature(function).parameters.values()
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.replace(annotation=Any) if isinstance(p.annotation, str) else p for p in parameters if p.kind not in unnamed]


def describable(annotation: Any) -> bool:
    """Return whether TOML can write a value for an annotation: no function, no array, and no list of these.

    >>> describable(Sequence[int]), describable(Sequence[type])
    (True, False)
    """
    return any(kind and (kind is Any or not of or describable(of[-1])) for kind, of in _alternatives(annotation))


def fits(value: Any, annotation: Any) -> bool:
    """Return whether an annotation admits a value from TOML; a value of a type that TOML does not have always fits.

    >>> fits(1, float), fits(True, int | float), fits([1, 2], Sequence[int]), fits("1", int | None)
    (True, False, True, False)
    """
    kinds = {kind for kind, _ in _alternatives(annotation)}
    if Any in kinds or not isinstance(value, tuple(WORDS)):
        return True
    if isinstance(value, bool):
        return bool in kinds and float not in kinds  # true in the place of a number is a mistake
    if isinstance(value, int):
        return int in kinds or float in kinds
    if isinstance(value, list):
        return any(not of or all(fits(each, of[0]) for each in value) for kind, of in _alternatives(annotation) if kind is list)
    return type(value) in kinds


def is_path(annotation: Any) -> bool:
    """Return whether an annotation makes a text the path of a file.

    >>> is_path(str | os.PathLike), is_path(str)
    (True, False)
    """
    return any(isinstance(each, type) and issubclass(each, os.PathLike) for each in _parts(annotation))


def typed(value: Any, annotation: Any) -> Any:
    """Turn the keys of a TOML table, which are text, into ints if the annotation is a dict with int keys.

    >>> typed({"100": 0.1}, dict[int, float] | None)
    {100: 0.1}
    """
    if isinstance(value, dict) and any(kind is dict and of[:1] == (int,) for kind, of in _alternatives(annotation)):
        return {int(key): each for key, each in value.items()}
    return value


def described(annotation: Any) -> str:
    """Describe the values that an annotation admits, for a person.

    >>> described(int | None), described(float | int | str), described(Sequence[int])
    ('a whole number', 'a number or text', 'a list of whole numbers')
    """
    alternatives = dict(_alternatives(annotation))
    if float in alternatives:
        alternatives.pop(int, None)
        alternatives.pop(bool, None)
    words = [word for kind, word in WORDS.items() if kind in alternatives]
    of = {kind for each in alternatives.get(list, ())[:1] for kind, _ in _alternatives(each) if kind}
    if of in ({int}, {float}):
        words[words.index("a list")] = f"a list of {WORDS[of.pop()][2:]}s"
    return " or ".join(words) or "left out: TOML cannot write what it takes"


def _alternatives(annotation: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return the TOML type of each alternative of an annotation (`Any`: every type; None: none), and the types inside that type."""
    return [_in_toml(part) for part in _parts(annotation)]


def _parts(annotation: Any) -> list[Any]:
    """Return the alternatives of an annotation."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for alternative in typing.get_args(annotation) for part in _parts(alternative)]
    return [annotation]


def _in_toml(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the TOML type of an annotation without alternatives, and the types inside that type."""
    origin, inside = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (Any, inspect.Parameter.empty) or isinstance(origin, typing.TypeVar):
        return Any, ()
    if origin is typing.Literal or isinstance(origin, type) and issubclass(origin, os.PathLike):
        return str, ()
    if origin in (list, tuple, Sequence, Iterable):
        return list, inside[:1]
    if origin in (dict, Mapping):
        return dict, inside
    return origin if origin in (int, float, bool, str) else None, ()
