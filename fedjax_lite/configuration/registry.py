"""Find the functions that a configuration names. A module is the registry of a kind, a function's signature the schema of its table.

`[aggregator] name = "trimmed_mean"  num_byzantine = 2` becomes `fl.aggregators.trimmed_mean(num_byzantine=2)`.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import optax

from fedjax_lite import (
    aggregators,
    algorithms,
    attacks,
    availability,
    baselines,
    clock,
    data,
    distill,
    engine,
    mixing,
    models,
    sampling,
    uplink,
    writers,
)
from fedjax_lite.availability import Availability
from fedjax_lite.base import Aggregator, Algorithm
from fedjax_lite.configuration.call import call
from fedjax_lite.configuration.code import function_of, is_code
from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.schema import describable, parameters_of
from fedjax_lite.configuration.table import Table
from fedjax_lite.data import partition
from fedjax_lite.engine import Engine
from fedjax_lite.writers import Writer

__all__ = ["KINDS", "find", "make", "names"]

Prepare = Callable[[Table], tuple[Table, Callable[[Callable], Callable]]]


class Kind(NamedTuple):
    """A kind of part that a configuration names."""

    where: str  # the place of its name in a configuration, for a person
    returns: tuple[type, ...]  # the types that its factories make; (): functions
    module: types.ModuleType | None = None  # the module that exports its factories; None: optax
    helpers: bool = False  # whether the module also exports other functions, which return other types
    beside: types.ModuleType | None = None  # another module that exports factories


TRANSFORMATION = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
KINDS = {
    "data": Kind("[data]", (data.TrainTest, data.FederatedData, data.Store), data, helpers=True),
    "partition": Kind("[data] partition", (), partition),
    "model": Kind("[model]", (models.Model,), models, helpers=True),
    "algorithm": Kind("[algorithm]", (Algorithm,), algorithms, helpers=True, beside=baselines),
    "optimizer": Kind("[client] and [server] optimizer: one table, or a list of tables to chain", TRANSFORMATION),
    "transform": Kind("beside an optimizer in such a list, or as an uplink", TRANSFORMATION),
    "uplink": Kind(
        "[client] uplink: one table, or a list of tables to chain; every transform too; one that wraps another takes it as inner",
        TRANSFORMATION,
        uplink,
        helpers=True,
    ),
    "schedule": Kind("a learning rate, epochs or steps: a table with a clock (round, step or client_step)", ()),
    "sampling": Kind("[sampling]; one that wraps another takes it as its sampler", (), sampling),
    "availability": Kind("[clock] availability, and law of the sampler availability", (Availability,), availability, helpers=True),
    "aggregator": Kind("[aggregator]; one that wraps another takes it as inner", (Aggregator,), aggregators, helpers=True),
    "ensemble": Kind("[distillation] ensemble", (distill.Ensemble,), distill, helpers=True),
    "attack": Kind("[attack], beside num_byzantine or byzantine = [ids]; none for no attack", (attacks.Attack,), attacks, helpers=True),
    "mixing": Kind("[algorithm] mixing, of an algorithm without a server", (np.ndarray, mixing.Drawn), mixing, helpers=True),
    "devices": Kind("[clock] devices", (clock.Devices,), clock, helpers=True),
    "engine": Kind("[engine]", (Engine,), engine),
    "writer": Kind("[run] writers, a list", (Writer,), writers, helpers=True),
}
ALSO = {"optimizer": ("transform", "uplink"), "uplink": ("transform",)}  # kind -> kinds that can be named in its place
CHAINS = ("optimizer", "uplink")  # kinds of which a list is a chain
INSIDE = {
    "partition": "partition",
    "sampler": "sampling",
    "law": "availability",
    "ensemble": "ensemble",
    "inner": "",
}  # argument -> its kind; "": the kind of its table
# Functions of optax that need the loss function or a gradient for each example, that combine others (write a list of tables), or
# that draw noise from a key that all clients would share.
NOT_HERE = frozenset(
    "chain named_chain masked lbfgs scale_by_backtracking_linesearch scale_by_zoom_linesearch sophia scale_by_muon "
    "dpsgd differentially_private_aggregate freeze add_noise noisy_sgd".split()
)
# Functions that need a population: to make another one of, or to tell who takes part.
NEED_DATA = frozenset({"save", "split", "inclusion"})


def names(kind: str) -> dict[str, Callable]:
    """Return the factories of a kind that a configuration can describe, by name.

    >>> sorted(names("engine"))
    ['packed', 'padded', 'sequential']
    """
    module, returns = KINDS[kind].module, KINDS[kind].returns
    if module is not None:
        modules = [each for each in (module, KINDS[kind].beside) if each is not None]
        found = {name: getattr(each, name) for each in modules for name in each.__all__ if name not in NEED_DATA}
        if KINDS[kind].helpers:
            made = {name: get_type_hints(value).get("return") for name, value in found.items()}
            found = {name: value for name, value in found.items() if made[name] in returns}
    else:
        both = {**vars(optax.contrib), **vars(optax)}
        found = {name: value for name, value in both.items() if kind == _kind_in_optax(name, value)}
    return {name: found[name] for name in sorted(found) if inspect.isfunction(found[name]) and _describable(found[name], kind)}


def find(table: Table, kind: str) -> tuple[Callable, Table]:
    """Return the factory that a table names, and the table without its name; a bare text is a table with only a name.

    Raises:
        ConfigError: for a table without a name, an unknown name, and code that cannot be loaded.
    """
    table = table.named()
    known = {name: factory for each in (kind, *ALSO.get(kind, ())) for name, factory in names(each).items()}
    if not isinstance(table.value, dict):
        raise table.error(f'must be a table with a name, such as {{ name = "{next(iter(known))}" }}, got {table.value!r}')
    if "name" not in table:
        raise table.error(f"give name: one of {', '.join(list(known)[:12])}{' ...' if len(known) > 12 else ''}")
    name = table.value["name"]
    if is_code(name):
        return function_of(table.at("name")), table.without(["name"])
    if name not in list(known):  # a list, since a table has no hash
        raise table.error(f"unknown {kind} {name!r}{nearest(name, known)}; see fedjax-lite list {kind}", "name")
    return known[name], table.without(["name"])


def make(table: Table, kind: str, prepare: Prepare | None = None, **defaults: Any) -> Any:
    """Build the part that a table describes, or the chain that a list of tables describes.

    Args:
        table: the table; tables inside, for instance `inner`, are built first.
        kind: the kind of the part.
        prepare: is given the table, and every table inside of this kind; returns a table to build in its place, and a function that is
            given the factory that this one names and returns a factory of the same signature.
        defaults: arguments from other sections, for the factories that take them.

    Raises:
        ConfigError: for an unknown name or key, a value of the wrong type, arguments that the factory refuses, and code that makes another
            part.
    """
    if kind in CHAINS and isinstance(table.value, list):
        if not table.value:
            raise table.error("is an empty list: give at least one table, or leave it out")
        return optax.chain(*[make(each, kind, **defaults) for each in table.items()])
    table, around = prepare(table) if prepare else (table, None)
    factory, arguments = find(table, kind)
    accepted = inspect.signature(factory).parameters
    for key in [key for key in INSIDE if key in arguments and key in accepted]:
        shared = {name: arguments.get(name) for name in ("num_byzantine",) if name in arguments}
        inside = make(arguments.at(key), INSIDE[key] or kind, None if INSIDE[key] else prepare, **defaults | shared)
        arguments = arguments.also(**{key: inside})
    missing = {key: value for key, value in defaults.items() if key in accepted and key not in arguments}
    made = call(arguments.also(**missing), around(factory) if around else factory)
    returns = KINDS[kind].returns
    if not (isinstance(made, returns) if returns else callable(made)):
        wanted = " or ".join(f"a{'n' * (each.__name__[0] in 'AE')} {each.__name__}" for each in returns) or "a function"
        raise table.error(f"must make {wanted}, and makes {type(made).__name__}", *(["name"] if "name" in table else []))
    return made


def _kind_in_optax(name: str, value: Any) -> str:
    """Return the kind of part that an optax function makes, by its signature; "" for another function."""
    if name.startswith("_") or name in NOT_HERE or not inspect.isfunction(value):
        return ""
    signature = inspect.signature(value, eval_str=True)
    if signature.return_annotation == optax.Schedule:
        return "schedule"
    if "GradientTransformation" not in str(signature.return_annotation):
        return ""
    has_rate = any("learning_rate" in key for key in signature.parameters)
    return "optimizer" if has_rate and not name.startswith("scale_by") else "transform"


def _describable(function: Callable, kind: str) -> bool:
    """Return whether a configuration can give every required argument; other sections give an algorithm's, and a sampler's loss_fn."""
    required = [p for p in parameters_of(function) if p.default is p.empty and not (kind == "sampling" and p.name == "loss_fn")]
    return kind == "algorithm" or all(p.name in INSIDE or describable(p.annotation) for p in required)
