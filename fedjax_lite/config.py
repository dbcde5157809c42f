"""From a TOML file to a run. The namespace is the registry and a factory's signature is the schema.

`[aggregator] name = "trimmed_mean"  num_byzantine = 2` becomes `fl.aggregators.trimmed_mean(num_byzantine=2)`.
"""

import difflib
import inspect
import re
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from fedjax_lite import aggregators, data, engine, models, sampling, schedules
from fedjax_lite.batches import Batches
from fedjax_lite.data import partition
from fedjax_lite.data.federated import TrainTest, labels_of
from fedjax_lite.federate import federate
from fedjax_lite.run import Convergence, run
from fedjax_lite.server import adaptive_rate, optimizer_server
from fedjax_lite.work import sgd_work

NAMESPACES = {  # what a table's "name" is looked up in
    "data": [data],
    "partition": [partition],
    "model": [models],
    "optimizer": [optax, optax.contrib],
    "uplink": [optax],
    "schedule": [optax],
    "sampling": [sampling],
    "aggregator": [aggregators],
    "engine": [engine],
}
SECTIONS = ("name", "seed", "data", "model", "client", "sampling", "aggregator", "server", "engine", "run")
REQUIRED = ("name", "data", "model", "client", "sampling", "aggregator", "server", "run")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the file, the line and the remedy."""


class Config:
    """A configuration and the places its values come from.

    Args:
        values: nested dicts, as TOML gives them.
        text: the TOML text, for line numbers.
        source: the file's name.
    """

    def __init__(self, values: dict[str, Any], text: str = "", source: str = "the configuration") -> None:
        self.values, self._text, self._source = values, text, source

    def error(self, path: Sequence[str], message: str) -> ConfigError:
        """The error to raise for what stands at a path such as ("client", "epochs")."""
        line = _line_of(self._text, path)
        return ConfigError(f"{self._source}{f':{line}' if line else ''}: {'.'.join(path)}: {message}")

    def call(self, function: Callable, arguments: dict[str, Any], path: Sequence[str]) -> Any:
        """Call a factory with a table's values; what it refuses is an error at that place."""
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        for key in arguments:
            if key not in known:
                raise self.error([*path, key], f"unknown key {key!r}{_nearest(key, known)}; it takes {', '.join(known) or 'no keys'}")
        try:
            return function(**arguments)
        except ConfigError:
            raise
        except (TypeError, ValueError, OSError) as error:
            missing = re.search(r"missing \d+ required .*argument.*?: (.*)", str(error))
            at = next((key for key in arguments if re.search(rf"\b{re.escape(key)}\b", str(error))), None)
            raise self.error([*path, at] if at else path, f"give {missing[1]}" if missing else str(error)) from error

    def find(self, kind: str, table: Any, path: Sequence[str]) -> tuple[Callable, dict[str, Any]]:
        """The factory that a table names, and its other values."""
        if isinstance(table, str):
            table = {"name": table}
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise self.error(path, f'needs a table with a name, such as {{ name = "{names(kind)[0]}" }}, got {table!r}')
        for namespace in NAMESPACES[kind]:
            if table["name"] in public_names(kind, namespace):
                return getattr(namespace, table["name"]), {key: value for key, value in table.items() if key != "name"}
        raise self.error([*path, "name"], f"unknown {kind} {table['name']!r}{_nearest(table['name'], names(kind))}; see 'fedjax-lite list'")

    def make(self, kind: str, table: Any, path: Sequence[str], **given: Any) -> Any:
        """What a table describes; `given` are arguments that other sections determine."""
        factory, arguments = self.find(kind, table, path)
        accepted = inspect.signature(factory).parameters
        return self.call(factory, {key: value for key, value in given.items() if key in accepted} | arguments, path)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and apply `section.key=value` overrides, whose values are TOML too (or plain words)."""
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: write it as section.key=value")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        *parents, last = key.split(".")
        table = values
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {override}: {parent} is a value, not a table")
        table[last] = parsed
    config = Config(values, text, str(path))
    for section in values:
        if section not in SECTIONS:
            raise config.error([section], f"unknown section{_nearest(section, SECTIONS)}; there are {', '.join(SECTIONS)}")
    for section in REQUIRED:
        if section not in values:
            raise config.error([section], "is missing")
    for section, kind in {"name": str, "seed": int, "client": dict, "server": dict, "run": dict}.items():
        if not isinstance(values.get(section, kind()), kind):
            raise config.error([section], f"must be {'a table' if kind is dict else kind.__name__}, got {values[section]!r}")
    return config


def prepare(config: Config) -> Callable[..., Any]:
    """Build every part of a configuration; returns `run` with all but `out` and `resume` bound.

    Raises:
        ConfigError: for whatever is unknown or refused, before anything is compiled or written.
    """
    values = config.values
    key = jax.random.key(values.get("seed", 0))
    source = _data(config)
    model, loss_fn = _model(config, source)
    params = model.init(jax.random.fold_in(key, 0), source.example)

    client = dict(values["client"])
    batches = {
        "size": client.pop("batch_size", None),
        **{name: _scheduled(config, client.pop(name), ["client", name]) for name in ("epochs", "steps") if name in client},
    }
    if batches["size"] is None:
        raise config.error(["client"], 'give batch_size: a number, or "all" for all of a client\'s examples')
    batches["size"] = None if batches["size"] == "all" else batches["size"]
    uplink = [config.make("uplink", table, ["client", "uplink"]) for table in _list(client.pop("uplink", []))]
    work = config.call(sgd_work, {"loss_fn": loss_fn, **_optimizer(config, client, "client")}, ["client"])

    server = dict(values["server"])
    adaptive = server.pop("adaptive_rate", None)
    built_server = config.call(optimizer_server, _optimizer(config, server, "server"), ["server"])
    if adaptive is not None:
        built_server = config.call(adaptive_rate, {"server": built_server, **adaptive}, ["server", "adaptive_rate"])

    algorithm = federate(
        work,
        config.make("aggregator", values["aggregator"], ["aggregator"]),
        built_server,
        batches=config.call(Batches.__new__, {"cls": Batches, **batches}, ["client"]),
        population=source.population,
        uplink=optax.chain(*uplink) if uplink else None,
        engine=config.make("engine", values.get("engine", "packed"), ["engine"]),
    )
    sampler = _sampler(config, values["sampling"], ["sampling"])
    try:
        jax.eval_shape(lambda sizes: sampler(key, sizes, 0), source.train.size)
    except ValueError as error:
        raise config.error(["sampling", "clients"], str(error)) from error

    options = dict(values["run"])
    if isinstance(options.get("converge"), dict):
        options["converge"] = config.call(Convergence, options["converge"], ["run", "converge"])
    allowed = ("rounds", "evaluate_every", "checkpoint_every", "converge")
    for name in options:
        if name not in allowed:
            raise config.error(["run", name], f"unknown key {name!r}{_nearest(name, allowed)}; it takes {', '.join(allowed)}")
    if "rounds" not in options:
        raise config.error(["run"], "give rounds")
    # What may differ when a run is resumed: how long it goes on, and where its clients are laid out.
    same = {name: value for name, value in values.items() if name not in ("run", "engine", "name")}
    return partial(
        run, algorithm, source.train, params, sampler, key=key, loss_fn=loss_fn, test=source.test, identity={"config": same}, **options
    )


def public_names(kind: str, namespace: Any) -> list[str]:
    """The names of a module that a configuration can use for a kind of thing."""
    found = []
    for name in getattr(namespace, "__all__", dir(namespace)):
        value = getattr(namespace, name)
        if name.startswith("_") or inspect.isclass(value) or not callable(value) or value in NOT_IN_CONFIGS:
            continue
        if namespace in (optax, optax.contrib) and kind not in _returns(value):
            continue
        found.append(name)
    return sorted(found)


def names(kind: str) -> list[str]:
    """Every name a configuration can use for a kind of thing."""
    return sorted({name for namespace in NAMESPACES[kind] for name in public_names(kind, namespace)})


# Parts of the same modules that take functions, so no table can describe them.
NOT_IN_CONFIGS = (aggregators.from_sum, aggregators.from_stack, models.from_linen, models.supervised, sampling.cohort)


def _returns(function: Any) -> tuple[str, ...]:
    """Which kinds of things an optax function makes, by its annotations."""
    annotation = str(getattr(function, "__annotations__", {}).get("return", ""))
    if "GradientTransformation" in annotation:
        return "optimizer", "uplink"
    return ("schedule",) if "Schedule" in annotation else ()


def _data(config: Config) -> TrainTest:
    table = dict(config.values["data"])
    if "partition" in table:
        table["partition"] = config.make("partition", table["partition"], ["data", "partition"])
    factory, _ = config.find("data", table, ["data"])
    seed = {"seed": config.values.get("seed", 0)} if "seed" in inspect.signature(factory).parameters else {}
    return config.make("data", seed | table, ["data"])


def _model(config: Config, source: TrainTest) -> tuple[models.Model, Any]:
    """The model and its loss: classes and outputs come from the data, the loss from the kind of its labels."""
    table = dict(config.values["model"])
    labels = labels_of(source.train.examples)
    loss = table.pop("loss", "squared" if labels is None else "softmax")
    classes = 0 if labels is None else int(labels.max()) + 1
    if labels is not None and table.get("classes", classes) < classes:
        raise config.error(["model", "classes"], f"labels out of range: classes={table['classes']}, but the data has a label {classes - 1}")
    target = source.example["y"]
    given = {"classes": classes} if labels is not None else {"outputs": int(np.size(target))}
    return (model := config.make("model", table, ["model"], **given)), config.call(models.supervised, {"model": model, "loss": loss}, ["model"])


def _optimizer(config: Config, table: dict[str, Any], section: str) -> dict[str, Any]:
    """The arguments of client work or server, with the optimizer's tables turned into optax."""
    if "optimizer" not in table:
        raise config.error([section], "give optimizer, such as { name = \"sgd\", learning_rate = 0.1 }")
    path, tables = [section, "optimizer"], _list(table["optimizer"])
    rest = {key: value for key, value in table.items() if key != "optimizer"}
    scheduled = [t for t in tables if isinstance(t, dict) and isinstance(t.get("learning_rate"), dict)]
    if not scheduled:
        built = [config.make("optimizer", t, path) for t in tables]
        return {"optimizer": built[0] if len(built) == 1 else optax.chain(*built), **rest}
    if len(scheduled) > 1:
        raise config.error(path, "one learning rate can be scheduled, not several")
    rate = _scheduled(config, scheduled[0]["learning_rate"], [*path, "learning_rate"])

    def factory(learning_rate):
        built = [config.make("optimizer", t | {"learning_rate": learning_rate} if t is scheduled[0] else t, path) for t in tables]
        return built[0] if len(built) == 1 else optax.chain(*built)

    factory(0.1)  # refuse now what would be refused while compiling
    return {"optimizer": factory, "learning_rate": rate, **rest}


def _scheduled(config: Config, value: Any, path: Sequence[str]) -> Any:
    """A number as it is; a table as an optax schedule on the clock it names."""
    if not isinstance(value, dict):
        return value
    clocks = {"round": schedules.on_round, "step": schedules.on_step, "client_step": schedules.on_client_step}
    clock = value.get("clock", "round")
    if clock not in clocks:
        raise config.error([*path, "clock"], f"unknown clock {clock!r}{_nearest(str(clock), clocks)}; there are {', '.join(clocks)}")
    return clocks[clock](config.make("schedule", {key: x for key, x in value.items() if key != "clock"}, path))


def _sampler(config: Config, table: Any, path: Sequence[str]) -> Any:
    if isinstance(table, dict) and "sampler" in table:
        table = table | {"sampler": _sampler(config, table["sampler"], [*path, "sampler"])}
    return config.make("sampling", table, path)


def _list(x: Any) -> list[Any]:
    return x if isinstance(x, list) else [x]


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _line_of(text: str, path: Sequence[str]) -> int | None:
    """The line of a TOML text on which a path is set: the deepest part of it that can be found."""
    section, found = "", None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([\w.\-]+)\s*\]+", line)
        if header:
            section = header[1]
            if section == ".".join(path[: section.count(".") + 1]):
                found = number
            continue
        key = re.match(r"\s*([\w.\-]+)\s*=", line)
        if key:
            full = f"{section}.{key[1]}" if section else key[1]
            if full == ".".join(path[: full.count(".") + 1]):
                return number
    return found
