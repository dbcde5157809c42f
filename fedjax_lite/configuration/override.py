"""Set a value of a configuration, by a text such as `run.rounds=5` or at a path."""

import re
import tomllib
from typing import Any

from fedjax_lite.configuration.table import ConfigError, Where
from fedjax_lite.refuse import short

__all__ = ["check_depth", "override", "set_value"]

DEEPEST = 50  # tables and lists within each other


def check_depth(value: Any, depth: int = 0) -> None:
    """Refuse, with a RecursionError, a value nested deeper than `DEEPEST`, before other functions recurse into it."""
    if depth > DEEPEST:
        raise RecursionError
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(each, depth + 1)


def override(values: dict[str, Any], written: str) -> Where:
    """Set one value in place; return its path, in which a place in a list is a number: client.optimizer.0.learning_rate."""
    dotted, equals, value = (part.strip() for part in written.partition("="))
    path: list[str | int] = []
    try:
        table: Any = tomllib.loads(f"{dotted} = 0")  # a key in quotes may have dots
        while isinstance(table, dict):
            path.append(next(iter(table)))
            table = table[path[-1]]
    except tomllib.TOMLDecodeError:
        equals = ""
    if not equals:
        raise ConfigError(f"--set {short(written)}: write it as section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if re.match(r"[\[{\"']", value):
            raise ConfigError(f"--set {written}: {value} is not valid TOML: {error}") from None
        parsed = value
    try:
        check_depth(parsed)
    except RecursionError:
        raise ConfigError(f"--set {short(written)}: its value is nested too deeply") from None
    if why := set_value(values, path, parsed):
        raise ConfigError(f"--set {short(written)}: {why}")
    return tuple(path)


def set_value(values: dict[str, Any], path: list[str | int], value: Any) -> str:
    """Set one value in place, and turn the path's places in lists into numbers; return why the path can't be set, or ""."""
    here: Any = values
    for i, key in enumerate(path):
        if isinstance(here, list):
            if not str(key).isdecimal() or int(key) >= len(here):
                return f"{'.'.join(map(str, path[:i]))} is a list of {len(here)}: give a number from 0 to {len(here) - 1}, not {key}"
            path[i] = key = int(key)
        elif isinstance(here, dict):
            here.setdefault(key, {})
        else:
            return f"{'.'.join(map(str, path[:i]))} is {short(repr(here))}, not a table: set the whole of it"
        if i == len(path) - 1:
            here[key] = value
        here = here[key]
    return ""
