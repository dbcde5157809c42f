"""The table [grid] of a configuration: the values that vary in a study, and the seeds."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from fedjax_lite.configuration.config import SECTIONS, nearest
from fedjax_lite.configuration.table import Config, Origin, Table
from fedjax_lite.study.grid import Axis
from fedjax_lite.study.study import seeds_of

ONE = ("name", "seed", "run", "grid", "code")  # sections that cannot vary in a study
SEEDS = 5  # the default number of seeds
ATTACKERS = ("num_byzantine", "byzantine", "seed")  # keys of [attack] that stay where its other keys are replaced


class Grid(NamedTuple):
    """A configuration's grid."""

    axes: tuple[Axis, ...]
    choices: list[list[dict[str, Any]]]  # for each axis and place: dotted path -> value
    seeds: tuple[int, ...]
    origins: dict[str, Origin]  # dotted path -> where its values were written


def grid_of(config: Config) -> Grid:
    """Read the axes and the seeds of [grid].

    Raises:
        ConfigError: no grid, a path that cannot vary, no list of different values.
    """
    listed = _flat(config.at("grid"))
    if not listed:
        raise config.error(("grid",), "a study needs a table [grid], such as client.optimizer.learning_rate = [0.05, 0.1]; or use run")
    seeds = _seeds(config, listed)
    axes, choices, origins = list[Axis](), list[list[dict[str, Any]]](), dict[str, Origin]()
    for key, values in listed.items():
        names = _names(key, values)
        rows = _rows(names, values)
        labels = tuple(zip(*(axis_labels(column) for column in zip(*rows, strict=True)), strict=True))
        for label in labels:
            if labels.count(label) > 1:
                raise values.error(f"has {(label if len(names) > 1 else label[0])!r} twice")
        axes.append(Axis(names, labels))
        choices.append([
            {name: _with_attackers(config, value) if name == "attack" else value for name, value in zip(names, row, strict=True)}
            for row in rows
        ])  # fmt: skip
        origins |= {name: config.origin(values.path) for name in names}
    every = [name for axis in axes for name in axis.names]
    for name in every:
        if every.count(name) > 1:
            raise config.error(("grid",), f"has {name} on two axes: leave one out")
    return Grid(tuple(axes), choices, seeds, origins)


def _names(key: str, values: Table) -> tuple[str, ...]:
    """Return the paths that change together along an axis: those in its key, between commas."""
    names = tuple(name.strip() for name in key.split(","))
    for name in names:
        section = name.split(".")[0]
        if section in ONE or not all(name.split(".")):
            raise values.error(f"{name} cannot vary in a study" + ("; give seeds or seed" if section == "seed" else ""))
        if section not in SECTIONS:
            raise values.error(f"unknown section {section!r}{nearest(section, SECTIONS)}; there are {', '.join(SECTIONS)}")
    return names


def _rows(names: tuple[str, ...], values: Table) -> list[tuple[Any, ...]]:
    """Return the rows of values of an axis, a value for each of its paths."""
    if not isinstance(values.value, list):
        raise values.error(f"must be a list of values, got {values.value!r}")
    if not values.value:
        raise values.error("is an empty list: give at least one value, or leave it out")
    if len(names) == 1:
        return [(value,) for value in values.value]
    for row in values.value:
        if not isinstance(row, list) or len(row) != len(names):
            raise values.error(f"must be a list of rows, each with a value for {', '.join(names)}, got {row!r}")
    return [tuple(row) for row in values.value]


def _with_attackers(config: Config, table: Any) -> Any:
    """Add the attackers of [attack] to an attack of the grid that does not name its own."""
    before = config.values.get("attack", {})
    if not isinstance(table, dict) or not isinstance(before, dict):
        return table
    kept = {name: before[name] for name in ATTACKERS if name in before}
    if {"num_byzantine", "byzantine"} & table.keys():
        kept = {name: value for name, value in kept.items() if name == "seed"}
    return kept | table


def axis_labels(values: Sequence[Any]) -> list[Any]:
    """Return a label for each value: a number or text itself; a table's name with the keys that differ among its namesakes.

    >>> behind = {"name": "nnm", "inner": {"name": "krum"}}
    >>> axis_labels([{"name": "mean"}, {"name": "ipm", "scale": 1}, {"name": "ipm", "scale": 5}, behind])
    ['mean', 'ipm scale=1', 'ipm scale=5', 'nnm']
    >>> axis_labels([{"name": "nnm", "inner": {"name": "krum"}}, {"name": "nnm", "inner": {"name": "median"}}, 3])
    ['nnm(krum)', 'nnm(median)', 3]
    """
    labels: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            of_name = [other for other in values if isinstance(other, dict) and other.get("name") == value.get("name")]
            telling = {key: x for key, x in value.items() if key == "name" or any(other.get(key) != x for other in of_name)}
            labels.append(_label(telling))
        else:
            labels.append(value if isinstance(value, str | int | float) else json.dumps(value))
    return labels


def _label(table: dict[str, Any]) -> str:
    """Write a table in short: name(tables inside) key=value.

    >>> _label({"name": "nnm", "inner": {"name": "krum"}, "num_byzantine": 2})
    'nnm(krum) num_byzantine=2'
    """
    inside = ", ".join(_label(x) for x in table.values() if isinstance(x, dict))
    keys = [f"{key}={x if isinstance(x, str) else json.dumps(x)}" for key, x in table.items() if key != "name" and not isinstance(x, dict)]
    return " ".join(filter(None, [str(table.get("name", "")) + (f"({inside})" if inside else ""), *keys])) or "{}"


def _flat(table: Table, name: str = "") -> dict[str, Table]:
    """Return the values of a grid by dotted path, whether TOML has the path as nested tables or in quotes."""
    flat: dict[str, Table] = {}
    for key, value in (table.value or {}).items():
        dotted = f"{name}.{key}" if name else key
        flat |= _flat(table.at(key), dotted) if isinstance(value, dict) and value else {dotted: table.at(key)}
    return flat


def _seeds(config: Config, listed: dict[str, Table]) -> tuple[int, ...]:
    """Take the seeds out of the grid: `seeds = 5` counts from the configuration's own seed, `seed = [0, 1]` lists them."""
    if "seeds" in listed and "seed" in listed:
        raise listed["seeds"].error("give seeds (how many) or seed (a list), not both")
    name = "seed" if "seed" in listed else "seeds"
    table = listed.pop(name, Table(config, ("grid",), SEEDS))
    value, first = table.value, config.values.get("seed", 0)
    if name == "seeds" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise table.error(f"must be a whole number of at least 1, got {value!r}")
    if name == "seed" and not isinstance(value, list):
        raise table.error(f"must be a list of whole numbers, got {value!r}")
    try:
        return seeds_of(range(first, first + value) if name == "seeds" else value)
    except ValueError as error:
        raise table.error(str(error).removeprefix("study: ")) from None
