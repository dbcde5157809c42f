"""The names a configuration can use. The module is the registry and a function's signature is the schema.

`[aggregator] name = "trimmed_mean"  num_byzantine = 2` becomes `fl.aggregators.trimmed_mean(num_byzantine=2)`.
"""

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_type_hints

import optax

from fedjax_lite import aggregators, attacks, data, distill, engine, models, sampling, uplink
from fedjax_lite.base import Aggregator
from fedjax_lite.configuration.config import Config, ConfigError, Where, nearest
from fedjax_lite.configuration.schema import describable, described, fits, typed
from fedjax_lite.data import partition

__all__ = ["KINDS", "call", "find", "make", "names", "refusing"]

# kind -> where a configuration names one
KINDS = {
    "data": "[data]",
    "partition": "[data] partition",
    "model": "[model]",
    "optimizer": "[client] and [server] optimizer: one table, or a list of tables to chain",
    "transform": "beside an optimizer in such a list, or as an uplink",
    "uplink": "[client] uplink: one table, or a list of tables to chain; every transform too; one that wraps another takes it as inner",
    "schedule": "a learning rate, epochs or steps: a table with a clock (round, step or client_step)",
    "sampling": "[sampling]; one that wraps another takes it as its sampler",
    "aggregator": "[aggregator]; one that wraps another takes it as inner",
    "ensemble": "[distillation] ensemble",
    "attack": "[attack], beside num_byzantine or byzantine = [ids]; none for no attack",
    "engine": "[engine]",
}
MODULES: dict[str, types.ModuleType] = {
    "data": data,
    "partition": partition,
    "model": models,
    "sampling": sampling,
    "aggregator": aggregators,
    "attack": attacks,
    "ensemble": distill,
    "engine": engine,
    "uplink": uplink,
}
RETURNS: dict[str, tuple[type, ...]] = {
    "model": (models.Model,),
    "aggregator": (Aggregator,),
    "data": (data.TrainTest, data.FederatedData),
    "attack": (attacks.Attack,),
    "ensemble": (distill.Ensemble,),
    "uplink": (optax.GradientTransformationExtraArgs,),
}
ALSO = {"optimizer": ["transform"], "uplink": ["transform"]}
TABLES = ("partition", "sampler", "inner")  # arguments that are tables of a kind of their own
# Of optax: what needs the loss function or one gradient an example, what combines others (write a list of tables), and
# what draws noise from a key that all clients would share.
NOT_HERE = frozenset(
    "chain named_chain masked lbfgs scale_by_backtracking_linesearch scale_by_zoom_linesearch sophia scale_by_muon "
    "dpsgd differentially_private_aggregate freeze add_noise noisy_sgd".split()
)


def names(kind: str) -> dict[str, Callable]:
    """Every factory of a kind that a configuration can describe, by name.

    >>> sorted(names("engine"))
    ['packed', 'padded', 'sequential']
    """
    if kind in MODULES:
        exported = MODULES[kind].__all__
        found = {name: getattr(MODULES[kind], name) for name in exported}
        if kind in RETURNS:  # helpers are exported beside them
            found = {name: value for name, value in found.items() if get_type_hints(value).get("return") in RETURNS[kind]}
    else:
        found = {
            name: value for module in (optax.contrib, optax) for name, value in vars(module).items() if kind == _optax_kind(name, value)
        }
    return {name: found[name] for name in sorted(found) if inspect.isfunction(found[name]) and _describable(found[name])}


def find(config: Config, kind: str, table: Any, path: Where) -> tuple[Callable, dict[str, Any]]:
    """The factory that a table names, and the table's other values; a bare text is a table with only a name."""
    table = {"name": table} if isinstance(table, str) else table
    known = {name: factory for each in (kind, *ALSO.get(kind, ())) for name, factory in names(each).items()}
    if not isinstance(table, dict):
        raise config.error(path, f'must be a table with a name, such as {{ name = "{next(iter(known))}" }}, got {table!r}')
    if "name" not in table:
        raise config.error(path, f"give name: one of {', '.join(list(known)[:12])}{' ...' if len(known) > 12 else ''}")
    if table["name"] not in list(known):  # a list, since a table has no hash
        raise config.error([*path, "name"], f"unknown {kind} {table['name']!r}{nearest(table['name'], known)}; see fedjax-lite list {kind}")
    return known[table["name"]], {key: value for key, value in table.items() if key != "name"}


def make(config: Config, kind: str, table: Any, path: Where, **defaults: Any) -> Any:
    """What a table describes; `defaults` come from other sections, for the factories that take them.

    Raises:
        ConfigError: for an unknown name or key, a value of the wrong type, and whatever the factory refuses.
    """
    factory, arguments = find(config, kind, table, path)
    accepted = inspect.signature(factory).parameters
    return call(config, factory, {key: value for key, value in defaults.items() if key in accepted} | arguments, path)


def call(
    config: Config,
    function: Callable,
    arguments: Mapping[str, Any],
    path: Where,
    given: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
) -> Any:
    """Call a function with a table's values, once they are known to fit its signature.

    Args:
        config: for its errors.
        function: whose signature says what is known, required and of which type.
        arguments: the table's values, some of them already turned into what they describe.
        path: where the table stands.
        given: arguments that no table can set.
        also: keys of the same table that are read elsewhere, for the message about an unknown one.
    """
    given = given or {}
    parameters = {
        p.name: p
        for p in inspect.signature(function, eval_str=True).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in given
    }
    for key in arguments:
        if key not in parameters:
            known = [*also, *parameters]
            raise config.error([*path, key], f"unknown key{nearest(key, known)}; there are {', '.join(known) or 'none'}")
    for name, parameter in parameters.items():
        if name not in arguments and parameter.default is parameter.empty:
            kind = {"sampler": "sampling"}.get(name, name)
            example = f', such as {{ name = "{next(iter(names(kind)))}" }}' if kind in KINDS else ""
            raise config.error(path, f"give {name}{example}")
        if name in arguments and not fits(arguments[name], parameter.annotation):
            raise config.error([*path, name], f"must be {described(parameter.annotation)}, got {arguments[name]!r}")
    with refusing(config, path):
        return function(**{key: typed(value, parameters[key].annotation) for key, value in arguments.items()}, **given)


@contextmanager
def refusing(config: Config, path: Where = ()) -> Any:
    """Turn any exception into an error about a place; about a key below it, if the message names one.

    Nothing but a configuration's values varies inside, so whatever is raised there, in jax, optax or flax too, is about them.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        message = (
            str(error).split("\n")[0] if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}".split("\n")[0]
        )
        keys = [key for key in config.below(path) if len(key) > 1 and key[-1] != "name"]
        shapes = [r"{}\b", r".*\b{}\b"] if path else [r"{}\b"]
        named = [key for shape in shapes for key in keys if re.match(shape.format(re.escape(str(key[-1]))), message)]
        raise config.error(next(iter(named), path), message) from error


def _optax_kind(name: str, value: Any) -> str:
    """What an optax function makes, by its signature."""
    if name.startswith("_") or name in NOT_HERE or not inspect.isfunction(value):
        return ""
    signature = inspect.signature(value, eval_str=True)
    if signature.return_annotation == optax.Schedule:
        return "schedule"
    if "GradientTransformation" not in str(signature.return_annotation):
        return ""
    has_rate = any("learning_rate" in key for key in signature.parameters)
    return "optimizer" if has_rate and not name.startswith("scale_by") else "transform"


def _describable(function: Callable) -> bool:
    """Whether a table can give everything a function requires."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return all(p.name in TABLES or describable(p.annotation) for p in required)
