"""The table [clock] of a configuration: devices, availability and deadline, by which a run has virtual hours."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_lite.base import Algorithm, Tree
from fedjax_lite.clock import arrivals, arriving, timed
from fedjax_lite.clock.arrivals import durations_of
from fedjax_lite.configuration.call import call
from fedjax_lite.configuration.config import seed_of
from fedjax_lite.configuration.registry import find, make
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.data.train_test import Source
from fedjax_lite.sampling.participation import Sampler

__all__ = ["clocked", "made_on_host", "takes_durations"]

Made = Callable[[str], Any]  # "devices", "durations" or "table" -> what the host has made for the seed
PARTS = ["devices", "availability", "seed"]  # keys of [clock] beside the arguments of `timed` and `arrivals`
ORDERS = {"uniform": "uniform", "everyone": "uniform", "cyclic": "queue", "weighted": "examples"}  # sampler -> who is started next


def clocked(config: Config, sampler: Sampler, algorithm: Algorithm, made: Made) -> Sampler:
    """Put the sampler of [sampling] under the clock of [clock]; of an asynchronous algorithm, make one of its arrivals.

    Raises:
        ConfigError: for an asynchronous algorithm without [clock], a table without devices, unknown keys, arguments that are refused.
    """
    table = config.at("clock")
    if table.value is None:
        if algorithm.asynchrony is None:
            return sampler
        raise table.error('is missing: clients of an asynchronous server arrive by their speed; give devices = { name = "lognormal" }')
    if algorithm.asynchrony is not None:
        return arriving(made("table"))
    given = {"sampler": sampler, "devices": made("devices"), "availability": _availability(table)}
    return call(_checked(table).without(PARTS), timed, given, PARTS)


def made_on_host(config: Config, source: Source, seed: int, algorithm: Algorithm, params: Tree) -> Made:
    """Return the function that makes a seed's devices, and the table of arrivals of an asynchronous algorithm."""

    def made(what: str) -> Any:
        table = _checked(config.at("clock"))
        own_seed = seed_of(table, seed)
        devices = make(table.at("devices"), "devices", population=source.population, seed=own_seed)
        if what == "devices":
            return devices
        if what == "durations":
            return durations_of(algorithm, np.asarray(source.train.size), params, devices)
        concurrency, order = _at_once(config, source.population, algorithm)
        given = {"algorithm": algorithm, "data": np.asarray(source.train.size), "params": params, "devices": devices, "seed": own_seed}
        given |= {
            "concurrency": concurrency,
            "order": order,
            "availability": _availability(table),
            "rounds": config.at("run").get("rounds"),
        }
        return call(table.without([*PARTS, *_at_default(table)]), arrivals, given, PARTS)

    return made


def takes_durations(config: Config) -> bool:
    """Return whether the sampler of [sampling] has to know how long clients take."""
    return "durations" in inspect.signature(find(config.at("sampling"), "sampling")[0]).parameters


def _checked(table: Table) -> Table:
    """Return [clock] if it has devices."""
    table = table.checked('{ devices = { name = "lognormal", sigma = 1.0 } }')
    if "devices" not in table:
        raise table.error('give devices, such as { name = "lognormal", sigma = 1.0 }')
    return table


def _at_default(table: Table) -> list[str]:
    """Return the keys of a synchronous clock that ask for nothing, so that a grid's row can have them beside an asynchronous server."""
    both = inspect.signature(arrivals).parameters
    known = {name: p.default for name, p in inspect.signature(timed).parameters.items() if name not in both}
    return [name for name, default in known.items() if name in table and table.get(name) == default]


def _availability(table: Table) -> Any:
    """Build the availability of [clock], whose time is the virtual second; None where everyone is always there."""
    return make(table.at("availability"), "availability") if "availability" in table else None


def _at_once(config: Config, population: int, algorithm: Algorithm) -> tuple[int | None, str]:
    """Return how many clients train at once, and who is started next, by [sampling]."""
    table = config.at("sampling").named()
    name = table.get("name")
    if name not in ORDERS:
        raise table.error(f"an asynchronous server starts clients one by one, and takes {', '.join(ORDERS)}, not {name!r}", "name")
    if algorithm.asynchrony is not None and algorithm.asynchrony.tiers:
        return None, ORDERS[name]
    return (population if name == "everyone" else table.get("clients")), ORDERS[name]
