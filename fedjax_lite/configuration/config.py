"""Load a TOML file as a configuration: check its sections, and refuse values that no setting can have."""

import copy
import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedjax_lite.configuration.override import check_depth, override, set_value
from fedjax_lite.configuration.table import Config, ConfigError, Origin, Override, Table
from fedjax_lite.refuse import short

__all__ = ["SECTIONS", "changed", "load", "nearest", "seed_of"]

# section -> whether a configuration must have that section
SECTIONS = {
    "name": True,
    "seed": False,
    "data": True,
    "model": True,
    "algorithm": False,
    "client": True,
    "sampling": True,
    "clock": False,
    "aggregator": True,
    "attack": False,
    "distillation": False,
    "server": True,
    "privacy": False,
    "baselines": False,
    "engine": False,
    "run": True,
    "grid": False,
    "expected": False,
    "code": False,  # the hashes of the user's files, in a finished run's configuration
}
BROUGHT = {"algorithm": ("client", "aggregator", "server"), "distillation": ("server",)}  # section -> sections that are then not required

NAME = r"(?![. ])[\w !#$%&'()+,.=@\[\]^{}~-]{1,100}(?<! )"  # no separators of paths, no invisible characters


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, apply overrides, and check the sections.

    Args:
        path: the file; `~` is home.
        overrides: each "section.key=value"; the value is TOML, or else taken as text.

    Raises:
        ConfigError: for a file that cannot be read, an unknown or missing section, a section of the wrong type.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")  # Windows' editors put a byte order mark first
        values = tomllib.loads(text)
        check_depth(values)
    except OSError as error:
        raise ConfigError(f"cannot read {short(path)}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{short(path)} is not valid TOML: it is nested too deeply") from None
    except (ValueError, RuntimeError) as error:  # a RuntimeError for the home of an unknown user
        raise ConfigError(f"{short(path)} is not valid TOML: {short(error)}") from None
    here = Path()  # relative paths in overrides start at the current directory
    changes = tuple(Override(override(values, written), Origin(f"--set {written}", here)) for written in overrides)
    config = Config(values, text, str(Path(path).expanduser()), changes)
    _check_sections(config)
    return config


def changed(config: Config, changes: Mapping[str, Any], origins: Mapping[str, Origin] = MappingProxyType({})) -> Config:
    """Return `config` with other values at dotted paths, set from the shortest path to the longest; values may be tracers.

    Args:
        config: is left as it is.
        changes: path -> value.
        origins: path -> the place where the value was written, for a value that stands in the file.

    >>> changed(Config({"a": {"b": 1, "c": 2}}), {"a.b": 3}).values
    {'a': {'b': 3, 'c': 2}}
    """
    values, overrides = copy.deepcopy(config.values), list(config.overrides)
    for dotted in sorted(changes, key=lambda dotted: dotted.count(".")):
        path: list[str | int] = [*dotted.split(".")]
        value, origin = changes[dotted], origins.get(dotted, Origin(config.source, Path()))
        if why := set_value(values, path, copy.deepcopy(value) if isinstance(value, dict | list) else value):
            raise ConfigError(f"{origin.place}: {dotted}: {why}")
        overrides.append(Override(tuple(path), origin))
    return config._replace(values=values, overrides=tuple(overrides))


def nearest(name: Any, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known name, or "".

    >>> nearest("trimed_mean", ["median", "trimmed_mean"])
    "; did you mean 'trimmed_mean'?"
    """
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def seed_of(table: Table, default: Any = 0) -> Any:
    """Return the seed that a table gives, or a default; a study's may be a tracer.

    >>> seed_of(Config({"data": {"seed": 3}}).at("data")), seed_of(Config({"data": {}}).at("data"), 7)
    (3, 7)
    """
    seed = table.get("seed", default)
    if isinstance(seed, bool | str | float | list | dict) or isinstance(seed, int) and not 0 <= seed < 2**32:
        raise table.error(f"must be a whole number from 0 to 2^32 - 1, got {short(repr(seed))}", "seed")
    return seed


def _check_sections(config: Config) -> None:
    """Refuse sections that are unknown, missing or of a wrong type."""
    values = config.values
    for section in values:
        if section not in SECTIONS:
            raise config.error((section,), f"unknown section{nearest(section, SECTIONS)}; there are {', '.join(SECTIONS)}")
    brought = {section for name, sections in BROUGHT.items() if name in values for section in sections}
    for section, required in SECTIONS.items():
        if required and section not in values and section not in brought:
            raise config.error((section,), "this section is missing")
    _check(config.at())
    name = values["name"]
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise config.error(("name",), f"must be 1 to 100 letters, digits, spaces and signs that can name a folder, got {short(repr(name))}")
    for table in (config.at(), config.at("data"), config.at("model")):
        seed_of(table)
    for section in ("client", "server", "run", "grid", "code"):
        if not isinstance(values.get(section, {}), dict):
            raise config.error((section,), f"must be a table, got {values[section]!r}")


def _check(table: Table) -> None:
    """Refuse values that TOML can write and no setting can have: nan, dates, numbers beyond 64 bits."""
    value = table.value
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            _check(table.at(key))
    elif isinstance(value, float) and math.isnan(value):
        raise table.error("is nan: give a number")
    elif not isinstance(value, str | int | float):
        raise table.error(f"must be text, a number, true or false, a list or a table, got {value}")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise table.error(f"is {short(value, 40)}, more than 64 bits hold: lower it")
