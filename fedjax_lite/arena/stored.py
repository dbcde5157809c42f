"""The table of what is built in: read from the package, written by a contest of all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.field import FORMAT, ROUNDS, SEEDS, fingerprint
from fedjax_lite.arena.traffic import Traffic

SHIPPED = Path(__file__).with_name("arena.json")
DIGITS = 4  # of a stored score: there are 299 held-out examples


class Table(NamedTuple):
    """What became of all that is built in."""

    rounds: int
    seeds: int
    rules: dict[str, Scores]
    uplinks: dict[str, Traffic]
    made: dict[str, Any]  # date, seconds, code and device


def load(path: Path = SHIPPED) -> Table:
    """Read a table.

    Raises:
        ValueError: for a file that is no table, or one of another field.
    """
    again = "make it again with fl.arena(again=True)"
    try:
        read = orjson.loads(path.read_bytes())
        rules = {name: _scores(each) for name, each in read["rules"].items()}
        uplinks = {
            name: Traffic(_array(each["scores"]), np.nan if each["bits"] is None else each["bits"], each["broken"])
            for name, each in read["uplinks"].items()
        }
        table = Table(read["rounds"], read["seeds"], rules, uplinks, read["made"])
        kind = read["fingerprint"]
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"arena: {path} is no table of the arena ({type(error).__name__}: {error}): {again}") from None
    if kind != fingerprint(table.rounds):
        raise ValueError(f"arena: the table {path} is of another field ({kind}, not {fingerprint(table.rounds)}): {again}")
    return table


def text_of(table: Table, contender: Mapping[str, Any] | None = None) -> str:
    """Write a table as JSON, a line for each rule and uplink, and a contender beside it."""
    head = {"format": FORMAT, "fingerprint": fingerprint(table.rounds), "rounds": table.rounds, "seeds": table.seeds, "made": table.made}
    lines = [f"{_json(key)}:{_json(value)}" for key, value in head.items()]
    rules = {name: _plain(each._asdict()) for name, each in table.rules.items()}
    uplinks = {name: _plain(each._asdict()) for name, each in table.uplinks.items()}
    for key, rows in {"rules": rules, "uplinks": uplinks, **({"contender": contender} if contender else {})}.items():
        lines.append(f"{_json(key)}:{{\n" + ",\n".join(f"{_json(name)}:{_json(_plain(row))}" for name, row in rows.items()) + "\n}")
    return "{" + ",\n".join(lines) + "}\n"


def cut(table: Table, seeds: int) -> Table:
    """Keep the first seeds of a table alone, for a contender that met no more."""
    rules = {
        name: each._replace(clean=each.clean[:, :seeds], under={attack: x[..., :seeds] for attack, x in each.under.items()})
        for name, each in table.rules.items()
    }
    uplinks = {name: each._replace(scores=each.scores[:, :seeds]) for name, each in table.uplinks.items()}
    return table._replace(seeds=seeds, rules=rules, uplinks=uplinks)


def is_like(rounds: int, seeds: int) -> bool:
    """Return whether the shipped table can stand beside a contest of so many rounds and seeds."""
    return rounds == ROUNDS and seeds <= SEEDS


def _scores(read: Mapping[str, Any]) -> Scores:
    """Turn a rule's stored line into its scores."""
    under = {attack: _array(x) for attack, x in read["under"].items()}
    return Scores(_array(read["clean"]), under, tuple(read["told"]), read["broken"], read["breakdown"])


def _array(rows: Any) -> np.ndarray:
    """Make an array of nested lists; None is NaN."""
    return np.asarray(rows, np.float64)


def _plain(value: Any) -> Any:
    """Turn arrays into lists of rounded numbers, and what is not finite into None."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return round(value, DIGITS) if np.isfinite(value) else None
    return value


def _json(value: Any) -> str:
    """Write a value in one line of JSON."""
    return orjson.dumps(value).decode()
