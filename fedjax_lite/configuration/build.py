"""From a configuration's tables to a run: which parts there are, and what they take from each other."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import attacks
from fedjax_lite.aggregators import padded
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Key, Mechanism, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.clients import Family
from fedjax_lite.configuration.attack import attack_of
from fedjax_lite.configuration.config import Config, Where
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.distillation import distilled, soft_size
from fedjax_lite.configuration.model import architectures
from fedjax_lite.configuration.optimizer import CLOCKS, chain_of, scheduled, with_optimizer
from fedjax_lite.configuration.privacy import automatic, settings_of, solved, with_noise
from fedjax_lite.configuration.registry import call, make, refusing
from fedjax_lite.data.federated import Source
from fedjax_lite.federate import federate
from fedjax_lite.guarantees import hidden
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.privacy.budget import check_private, is_central
from fedjax_lite.privacy.record import record_level
from fedjax_lite.runner.arguments import check_options
from fedjax_lite.runner.convergence import Convergence
from fedjax_lite.runner.memory import check_model, device_memory
from fedjax_lite.runner.progress import say
from fedjax_lite.runner.run import run, trace
from fedjax_lite.sampling.participation import Sampler
from fedjax_lite.server import adaptive_rate, optimizer_server
from fedjax_lite.work import sgd_work

__all__ = ["Parts", "build", "mechanism_of", "options_of", "parts", "sampler_of"]


class Parts(NamedTuple):
    """What a configuration describes, but for its data and the options of its run."""

    algorithm: Algorithm
    params: Tree
    sampler: Sampler
    loss_fn: LossFn  # for evaluation
    key: Key


def build(config: Config, function: Callable[..., Any] = run) -> Callable[..., Any]:
    """Build every part of a configuration and check that they fit together.

    Args:
        config: from `fedjax_lite.configuration.config.load`.
        function: `fl.run`, or `fl.plan`, which takes the same arguments.

    Returns:
        The function with everything bound but, for `fl.run`, `out`, `resume` and `progress`. A [grid] is left out: its values are a
        study's.

    Raises:
        ConfigError: for whatever is unknown or refused, before anything is compiled or written.
    """
    options = options_of(config)
    source = load_data(config, config.values.get("seed", 0))
    delta = settings_of(config, source.population).delta
    outputs = outputs_of(config, source)
    if automatic(config):
        say("looking for the noise that keeps to the budget ...")
        config = solved(config, mechanism_of(config, source, outputs), sampler_of(config), source.population)
    algorithm, params, sampler, loss_fn, key = parts(config, source, outputs, config.values.get("seed", 0), device_memory())
    if algorithm.privacy is not None and algorithm.privacy.noise_multiplier == 0 and settings_of(config, source.population).target_epsilon:
        raise config.error(["aggregator", "noise_multiplier"], '0 keeps to no target_epsilon: take "auto", or leave the target out')
    if algorithm.privacy is None and settings_of(config, source.population).target_epsilon is not None:
        raise config.error(["privacy", "target_epsilon"], "nothing here is private: take a private aggregator, or leave it out")
    with refusing(config):  # what only shows when the parts meet: shapes, metrics one part wants of another, who takes part
        shapes = jax.eval_shape(algorithm.init, params, key)
        hides = hidden(shapes.own, shapes.uplink)
        check_private(
            algorithm.privacy, sampler, source.train.size, options["rounds"], options.get("converge"), hides, is_central(source.test)
        )
        first = min(options["rounds"], options.get("evaluate_every", 10))
        what = {"params": params, "key": key, "data": source.train, "test": source.test, "converge": options.get("converge")}
        trace(algorithm, sampler, loss_fn, rounds=first, **what)
    settings = {name: value for name, value in config.values.items() if name != "grid"}
    return partial(
        function,
        algorithm,
        source.train,
        params,
        sampler,
        key=key,
        loss_fn=loss_fn,
        test=source.test,
        config=settings,
        delta=delta,
        **options,
    )


def parts(config: Config, source: Source, outputs: tuple[int, str], seed: Any, memory: int | None = None) -> Parts:
    """The parts of a configuration for this data; pure, so that numbers among its values, the data and the seed can be tracers.

    Args:
        config: from `fedjax_lite.configuration.config.load`, or with numbers replaced by `fedjax_lite.configuration.config.changed`.
        source: from `load_data`.
        outputs: from `outputs_of`.
        seed: of the run's key.
        memory: bytes of the device, where that can be asked.
    """
    values, key = config.values, jax.random.key(seed)
    known, several = architectures(config, outputs, source.population)
    with refusing(config, ["model"]):
        check_model(jax.eval_shape(lambda: [one.model.init(key, source.example) for one in known]), memory)
        first = [one.model.init(jax.random.fold_in(key, k), source.example) for k, one in enumerate(known)]
    trained = [_clients(config, one.loss_fn) for one in known]
    families = [Family(work, one.clients, uplink) for (work, _, uplink), one in zip(trained, known, strict=True)]
    attack, byzantine, defaults = attack_of(config, outputs[0], source.population)
    defaults = defaults | _of_messages(config, first[0], soft_size(config, source, outputs[0]))
    model, loss_fn, server = known[0].model, known[0].loss_fn, _server(config)

    def aggregator_of(table, path):
        return _aggregator(config, table, path, defaults, source.population)

    if "distillation" in values:
        student = jax.random.fold_in(key, len(known))
        families, aggregator, server, model, loss_fn = distilled(
            config, source, outputs, student, known, first, families, aggregator_of, server
        )
    elif several:
        raise config.error(["model", "families"], "their weights are not alike, so nothing but [distillation] can bring them together")
    else:
        aggregator = aggregator_of(values["aggregator"], ["aggregator"])
    if attack is not None:
        with refusing(config, ["attack"]):
            both = [attacks.attacked(attack, byzantine, family.work, aggregator) for family in families]
            families, aggregator = [family._replace(work=work) for family, (work, _) in zip(families, both, strict=True)], both[0][1]
            loss_fn = attacks.measured(loss_fn, attack, model)
    with refusing(config, ["engine"]):
        work, uplink, params = (families, None, tuple(first)) if several else (families[0].work, families[0].uplink, first[0])
        algorithm = federate(
            work,
            aggregator,
            server or optimizer_server(optax.sgd(1.0)),
            batches=trained[0][1],
            population=source.population,
            uplink=uplink,
            engine=make(config, "engine", values.get("engine", "packed"), ["engine"]),
        )
    sampler = sampler_of(config)
    with refusing(config, ["sampling"]):
        jax.eval_shape(lambda sizes: sampler(key, sizes, jnp.int32(0)), source.train.size)
    return Parts(algorithm, params, sampler, loss_fn, key)


def mechanism_of(config: Config, source: Source, outputs: tuple[int, str]) -> Callable[[float], Mechanism | None]:
    """What a configuration's aggregator gives away, as a function of its noise multiplier."""

    def at(noise_multiplier: float) -> Mechanism | None:
        here = with_noise(config, noise_multiplier)
        return _aggregator(here, here.values["aggregator"], ["aggregator"], defaults, source.population).privacy

    model = architectures(config, outputs, source.population)[0][0].model
    params = jax.eval_shape(model.init, jax.random.key(0), source.example)
    defaults = _of_messages(config, params, soft_size(config, source, outputs[0]))
    return at


def options_of(config: Config) -> dict[str, Any]:
    """The values of [run]."""
    options = dict(config.values["run"])
    if "converge" in options:
        table = options["converge"]
        if not isinstance(table, dict):
            raise config.error(["run", "converge"], f'must be a table such as {{ metric = "test_loss", patience = 5 }}, got {table!r}')
        options["converge"] = call(config, Convergence, table, ["run", "converge"])
    call(config, check_options, options, ["run"])
    return options


def _clients(config: Config, loss_fn: LossFn) -> tuple[ClientWork, Batches, optax.GradientTransformation | None]:
    """Client work, batches and uplink."""
    table = dict(config.values["client"])
    sizes = {name: table.pop(name) for name in ("batch_size", "epochs", "steps") if name in table}
    shuffle, uplink, record = table.pop("shuffle", True), table.pop("uplink", None), table.pop("record", None)
    beside = ["batch_size", "epochs", "steps", "shuffle", "uplink", "record"]
    given = {"loss_fn": loss_fn, "gradients": None if record is None else _record_level(config, record, sizes.get("batch_size"))}
    work = with_optimizer(config, sgd_work, table, ["client"], given, beside, CLOCKS)
    if not isinstance(shuffle, bool):
        raise config.error(["client", "shuffle"], f"must be true or false, got {shuffle!r}")
    if "batch_size" not in sizes:
        raise config.error(["client"], 'give batch_size: a whole number, or "all" for all of a client\'s examples at once')
    if "epochs" in sizes and "steps" in sizes:
        raise config.error(["client", "steps"], "give epochs or steps, not both")
    for name, value in sizes.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        whole = whole or (isinstance(value, jax.Array) and name != "batch_size")  # of a study
        if not whole and not (isinstance(value, dict) and name != "batch_size") and not (value == "all" and name == "batch_size"):
            other = ' or "all"' if name == "batch_size" else ", or a schedule"
            raise config.error(["client", name], f"must be a whole number of at least 1{other}, got {value!r}")
        if isinstance(value, int) and value >= 2**31:
            raise config.error(["client", name], f"must be below 2^31, which steps are counted in, got {value}")
    size = None if sizes["batch_size"] == "all" else sizes.pop("batch_size")
    counts = {name: scheduled(config, sizes[name], ["client", name], ["round"]) for name in ("epochs", "steps") if name in sizes}
    batches = Batches(size, **counts, shuffle=shuffle)
    return work, batches, None if uplink is None else chain_of(config, "uplink", uplink, ["client", "uplink"])


def _record_level(config: Config, table: Any, batch_size: Any) -> Any:
    """Gradients that are private for each example; the divisor is the batch's size."""
    path = ["client", "record"]
    if not isinstance(table, dict):
        raise config.error(path, f"must be a table such as {{ clip = 1.0, noise_multiplier = 1.0 }}, got {table!r}")
    if not isinstance(batch_size, int):
        raise config.error(path, f"divides by the size of a batch, which must be a number: give batch_size, got {batch_size!r}")
    return call(config, record_level, table, path, {"batch_size": batch_size})


def _aggregator(config: Config, table: Any, path: Where, defaults: Mapping[str, Any], population: int) -> Aggregator:
    """An aggregator; one that wraps another takes its table as inner, which has the same num_byzantine if it does not say."""
    if isinstance(table, dict) and "inner" in table:
        of_both = {name: table[name] for name in ("num_byzantine",) if name in table}
        table = table | {"inner": _aggregator(config, table["inner"], [*path, "inner"], {**defaults, **of_both}, population)}
    trusted = table.get("trusted") if isinstance(table, dict) else None
    if isinstance(trusted, int) and trusted >= population:
        raise config.error([*path, "trusted"], f"client {trusted} does not exist: there are {population}, counted from 0")
    return make(config, "aggregator", table, path, **defaults)


def _of_messages(config: Config, params: Tree, numbers: int | None) -> dict[str, Any]:
    """What an aggregator is told of a run's messages, where its table does not say: changes of a model, or so many numbers."""
    table = config.values["aggregator"]
    params = params if numbers is None else jax.ShapeDtypeStruct((numbers,), jnp.float32)
    with refusing(config, ["aggregator"]):
        dimension = padded(params, *([table["block"]] if isinstance(table, dict) and "block" in table else []))
    return {"rounds": config.values["run"].get("rounds"), "dimension": dimension}


def _server(config: Config) -> Server | None:
    if "server" not in config.values:
        return None
    table = dict(config.values["server"])
    adaptive = table.pop("adaptive_rate", None)
    server = with_optimizer(config, optimizer_server, table, ["server"], {}, ["adaptive_rate"], ["round"])
    if adaptive is None:
        return server
    if not isinstance(adaptive, dict):
        raise config.error(["server", "adaptive_rate"], f"must be a table such as {{ power = 1.0 }}, got {adaptive!r}")
    return call(config, adaptive_rate, adaptive, ["server", "adaptive_rate"], given={"server": server})


def sampler_of(config: Config, table: Any = None, path: Where = ("sampling",)) -> Sampler:
    """What [sampling] names; one that wraps another takes its table."""
    table = config.values["sampling"] if table is None else table
    if isinstance(table, dict) and "sampler" in table:
        table = table | {"sampler": sampler_of(config, table["sampler"], [*path, "sampler"])}
    return make(config, "sampling", table, path)
