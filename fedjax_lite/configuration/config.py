"""A TOML file as nested tables that remember where each value stands, so that an error can name the line."""

import copy
import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_lite.refuse import short

__all__ = ["Config", "ConfigError", "changed", "load", "nearest"]

# section -> whether it must be there
SECTIONS = {
    "name": True,
    "seed": False,
    "data": True,
    "model": True,
    "client": True,
    "sampling": True,
    "aggregator": True,
    "attack": False,
    "distillation": False,
    "server": True,
    "privacy": False,
    "engine": False,
    "run": True,
    "grid": False,
}

DEEPEST = 50  # tables and lists within each other
NAME = r"(?![. ])[\w !#$%&'()+,.=@\[\]^{}~-]{1,100}(?<! )"  # no path's separators, nothing invisible

Where = Sequence[str | int]  # where a value stands: ("client", "uplink", 0, "max_norm")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the file, the line and the remedy."""


class Config(NamedTuple):
    """A configuration's values, and what is needed to say where each comes from."""

    values: dict[str, Any]  # nested, as TOML gives them, overrides applied
    text: str = ""  # of the file
    source: str = "the configuration"  # the file's name
    overrides: tuple[tuple[Where, str], ...] = ()  # what was changed: its path, and where, such as "--set run.rounds=5"

    def error(self, path: Where, message: str) -> ConfigError:
        """The error to raise about what stands (or is missing) at a path.

        >>> config = Config({"run": {"rounds": 0}}, "[run]\\nrounds = 0", "a.toml")
        >>> config.error(["run", "rounds"], "must be at least 1, got 0")
        ConfigError('a.toml:2: run.rounds: must be at least 1, got 0')
        """
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
        return ConfigError(": ".join(filter(None, (self.place(path), short(dotted), short(message, 1000)))))

    def place(self, path: Where) -> str:
        """Where the value at a path was written: the file and the line, or `--set`."""
        path = tuple(path)
        set_here = [place for changed, place in self.overrides if tuple(changed) == path[: len(changed)]]
        line = _line_of(self.text, path)
        if not set_here and line is None:  # neither: perhaps the file lacks this table, and `--set` made it
            set_here = [place for changed, place in self.overrides if path == tuple(changed)[: len(path)]]
        return set_here[-1] if set_here else f"{self.source}:{line}" if line else self.source

    def below(self, path: Where) -> list[Where]:
        """The path of every key under a path, those of a table before those of the tables in it; lists are not entered."""
        table: Any = self.values
        for part in path:
            table = table.get(part) if isinstance(table, dict) else table[int(part)] if isinstance(table, list) else None
        own: list[Where] = [(*path, key) for key in table] if isinstance(table, dict) else []
        return own + [key for each in own for key in self.below(each)]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, apply overrides, and check which sections there are.

    Args:
        path: the file.
        overrides: each "section.key=value"; the value is TOML, or else taken as text.

    Raises:
        ConfigError: for what cannot be read, an unknown or missing section, a section of the wrong type.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows' editors put a byte order mark first
        values = tomllib.loads(text)
        _check_depth(values)
    except OSError as error:
        raise ConfigError(f"cannot read {short(path)}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{short(path)} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{short(path)} is not valid TOML: {short(error)}") from None
    config = Config(values, text, str(path), tuple((_override(values, written), f"--set {written}") for written in overrides))
    for section in values:
        if section not in SECTIONS:
            raise config.error([section], f"unknown section{nearest(section, SECTIONS)}; there are {', '.join(SECTIONS)}")
    for section, required in SECTIONS.items():
        if required and section not in values and not (section == "server" and "distillation" in values):
            raise config.error([section], "this section is missing")
    _check(config, (), values)
    name, seed = values["name"], values.get("seed", 0)
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise config.error(["name"], f"must be 1 to 100 letters, digits, spaces and signs that can name a folder, got {short(repr(name))}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise config.error(["seed"], f"must be a whole number from 0 to 2^32 - 1, got {seed!r}")
    for section in ("client", "server", "run", "grid"):
        if not isinstance(values.get(section, {}), dict):
            raise config.error([section], f"must be a table, got {values[section]!r}")
    return config


def changed(config: Config, changes: Mapping[str, Any], places: Mapping[str, str]) -> Config:
    """A configuration with other values at some dotted paths, a table before what is in it; the values may be tracers.

    Args:
        config: is left as it is.
        changes: path -> value.
        places: path -> where the value stands, for errors about it.

    >>> changed(Config({"a": {"b": 1, "c": 2}}), {"a.b": 3}, {"a.b": "a.toml:5"}).values
    {'a': {'b': 3, 'c': 2}}
    """
    values, overrides = copy.deepcopy(config.values), list(config.overrides)
    for dotted in sorted(changes, key=lambda dotted: dotted.count(".")):
        path: list[str | int] = [*dotted.split(".")]
        value = changes[dotted]
        if why := _put(values, path, copy.deepcopy(value) if isinstance(value, dict | list) else value):
            raise ConfigError(f"{places[dotted]}: {dotted}: {why}")
        overrides.append((path, places[dotted]))
    return config._replace(values=values, overrides=tuple(overrides))


def nearest(name: Any, known: Iterable[str]) -> str:
    """What to add to a message about an unknown name.

    >>> nearest("trimed_mean", ["median", "trimmed_mean"])
    "; did you mean 'trimmed_mean'?"
    """
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_depth(value: Any, depth: int = 0) -> None:
    """Refuse what is nested so deeply that no setting can mean it, before anything else walks through it."""
    if depth > DEEPEST:
        raise RecursionError
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(each, depth + 1)


def _override(values: dict[str, Any], written: str) -> Where:
    """Change one value in place; returns its path, in which a place in a list is a number: client.optimizer.0.learning_rate."""
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
        _check_depth(parsed)
    except RecursionError:
        raise ConfigError(f"--set {short(written)}: its value is nested too deeply") from None
    if why := _put(values, path, parsed):
        raise ConfigError(f"--set {short(written)}: {why}")
    return path


def _put(values: dict[str, Any], path: list[str | int], value: Any) -> str:
    """Change one value in place, and the path's places in lists to numbers; if there is no such place, why."""
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


def _check(config: Config, path: tuple[str | int, ...], value: Any) -> None:
    """Refuse what TOML can write and no setting can mean."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check(config, (*path, key), each)
    elif isinstance(value, list):
        for i, each in enumerate(value):
            _check(config, (*path, i), each)
    elif isinstance(value, float) and math.isnan(value):
        raise config.error(path, "is nan: give a number")
    elif not isinstance(value, str | int | float):
        raise config.error(path, f"must be text, a number, true or false, a list or a table, got {value}")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise config.error(path, f"is {short(value, 40)}, more than 64 bits hold: lower it")


def _line_of(text: str, path: Where) -> int | None:
    """The line of the deepest part of a path that a TOML text sets."""
    section: tuple[str | int, ...] = ()
    count: dict[tuple[str | int, ...], int] = {}  # of [[tables]] so far
    depth, found = 0, None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line):
            section = ()
            for name in header[2].split("."):
                section = (*section, name)
                if section in count and section != tuple(header[2].split(".")):
                    section = (*section, count[section] - 1)
            if header[1] == "[[":
                count[section] = count.get(section, 0) + 1
                section = (*section, count[section] - 1)
            here = section if section != (*path, 0) else tuple(path)  # [[client]] where [client] is meant
        elif key := re.match(r"\s*(?:([\w.\-]+)|\"([^\"]+)\"|'([^']+)')\s*=", line):
            here = (*section, *(key[1].split(".") if key[1] else [key[2] or key[3]]))
        else:
            continue
        if len(here) > depth and tuple(here) == tuple(path[: len(here)]):
            depth, found = len(here), number
    return found
