"""Build a run from a configuration's tables: the parts, and the arguments that parts take from each other."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from fedjax_lite import attacks
from fedjax_lite.base import Aggregator, Algorithm, Key, Mechanism, Tree
from fedjax_lite.clients import Family
from fedjax_lite.comparison.bands import bands_of
from fedjax_lite.configuration.aggregator import aggregator_of, of_messages
from fedjax_lite.configuration.algorithm import algorithm_of
from fedjax_lite.configuration.attack import attack_of
from fedjax_lite.configuration.baselines import baselines_of
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.client import batches_of, uplink_of, work_of
from fedjax_lite.configuration.clock import Made, clocked, made_on_host, takes_durations
from fedjax_lite.configuration.code import check_unchanged, fingerprints
from fedjax_lite.configuration.config import changed, seed_of
from fedjax_lite.configuration.data import load_data, outputs_of, paths_of
from fedjax_lite.configuration.distillation import distillation_of, soft_size
from fedjax_lite.configuration.finetune import finetune_of
from fedjax_lite.configuration.model import architectures
from fedjax_lite.configuration.privacy import NOISE, automatic, settings_of, solved, with_noise
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.run import options_of
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.configuration.server import server_of
from fedjax_lite.configuration.start import freezing, frozen_of, others_of, started, where_learning
from fedjax_lite.configuration.table import Config
from fedjax_lite.data.train_test import Source
from fedjax_lite.evaluation import FineTune
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.runner.baselines import check_baselines
from fedjax_lite.runner.classes import check_classification
from fedjax_lite.runner.clients import check_clients
from fedjax_lite.runner.fit import Setup, check_clock, check_guarantee, decisive_of, trace
from fedjax_lite.runner.memory import check_model, device_memory
from fedjax_lite.runner.progress import say
from fedjax_lite.runner.run import run
from fedjax_lite.sampling.draw import cohort_shapes
from fedjax_lite.sampling.participation import Sampler
from fedjax_lite.server import optimizer_server

__all__ = ["Parts", "build", "mechanism_of", "parts", "sampler_of"]


class Parts(NamedTuple):
    """The parts that a configuration describes, without its data and the options of its run."""

    algorithm: Algorithm
    params: Tree
    sampler: Sampler
    loss_fn: LossFn  # for evaluation
    key: Key
    baselines: Mapping[str, Algorithm] = MappingProxyType({})
    finetune: FineTune | None = None
    clock: Made | None = None  # what the host makes for a seed where there is a [clock]


def build(config: Config, function: Callable[..., Any] = run) -> Callable[..., Any]:
    """Build every part of a configuration and check that they fit together.

    Args:
        config: from `fedjax_lite.configuration.config.load`.
        function: `fl.run`, or `fl.plan`, which takes the same arguments.

    Returns:
        The function with all arguments bound but, for `fl.run`, `out`, `resume` and `progress`. A [grid] is left out: its values are a
        study's.

    Raises:
        ConfigError: for settings that are unknown or refused, before compiling and writing.
    """
    check_unchanged(config)
    if "expected" in config.values:
        with refusing(config.at("expected")):
            bands_of(config.values["expected"])
    options = options_of(config)
    source = load_data(config, config.values.get("seed", 0))
    settings = settings_of(config, source.population)
    outputs = outputs_of(config, source)
    if automatic(config):
        say("looking for the noise that keeps to the budget ...")
        config = solved(config, mechanism_of(config, source, outputs), sampler_of(config), source.population)
    made = parts(config, source, outputs, config.values.get("seed", 0), device_memory())
    algorithm, params, sampler, loss_fn, key, baselines, finetune, _ = made
    if algorithm.privacy is not None and algorithm.privacy.noise_multiplier == 0 and settings.target_epsilon:
        raise config.error(NOISE, '0 keeps to no target_epsilon: take "auto", or leave the target out')
    if algorithm.privacy is None and settings.target_epsilon is not None:
        raise config.error(("privacy", "target_epsilon"), "nothing here is private: take a private aggregator, or leave it out")
    with refusing(config):  # errors that only show when the parts meet: shapes, a metric that a part lacks, participation
        every, decisive = options.get("evaluate_every", 10), decisive_of(options.get("converge"), options.get("keep_best"))
        setup = Setup(algorithm, source.train, params, sampler, options["rounds"], key, loss_fn, source.test, every)
        shapes = jax.eval_shape(algorithm.init, params, key)
        check_guarantee(setup, shapes, decisive)
        check_clock(setup, shapes)
        check_baselines(setup, shapes, baselines)
        check_clients(setup, finetune, source.new)
        check_classification(setup, options.get("classification", False))
        trace(setup, decisive)
    return partial(
        function,
        algorithm,
        source.train,
        params,
        sampler,
        key=key,
        loss_fn=loss_fn,
        test=source.test,
        config=settings_kept(config),
        notes={"paths": paths} if (paths := paths_of(config)) else None,
        delta=settings.delta,
        baselines=baselines,
        finetune=finetune,
        new_clients=source.new,
        **options,
    )


def parts(
    config: Config, source: Source, outputs: tuple[int, str], seed: Any, memory: int | None = None, clock: Made | None = None
) -> Parts:
    """Build a configuration's parts for this data; pure, so that numbers among its values, the data and the seed can be tracers.

    Args:
        config: from `fedjax_lite.configuration.config.load`, or with numbers replaced by `fedjax_lite.configuration.config.changed`.
        source: from `load_data`.
        outputs: from `outputs_of`.
        seed: the seed of the run's key, and of the first parameters unless [model] has its own.
        memory: bytes of the device; None where they are unknown.
        clock: what the host has made for the seed, such as devices; None: it is made now, and the seed is a number.
    """
    key = jax.random.key(seed)
    first_key = jax.random.key(seed_of(config.at("model"), seed))
    known = architectures(config, outputs, source)
    with refusing(config.at("model")):
        check_model(jax.eval_shape(lambda: [one.model.init(first_key, source.example) for one in known]), memory)
        first = [started(one.table, one.model.init(jax.random.fold_in(first_key, k), source.example)) for k, one in enumerate(known)]
    attack, byzantine, defaults = attack_of(config, 2 if outputs[1] == "binary" else outputs[0], source.population)
    frozen = frozen_of(config, known[0].model, source.example, first[0])
    defaults |= of_messages(config, others_of(frozen, first[0]), soft_size(config, source, outputs[0]))

    def attacked(work: Any, aggregator: Aggregator) -> tuple[Any, Aggregator]:
        assert attack is not None
        with refusing(config.at("attack")):
            return attacks.attacked(attack, byzantine, work, aggregator)

    rule_of = partial(aggregator_of, defaults=defaults, population=source.population)
    others_key = jax.random.fold_in(first_key, len(known))
    sections = Sections(config, source, outputs, others_key, known, first, rule_of, attacked if attack else None)
    if frozen is None:
        algorithm, params, model, loss_fn = _compose(sections)
    else:
        algorithm, params, model = freezing(sections, frozen, lambda sections: _compose(sections)[0]), first[0], known[0].model
        loss_fn = algorithm.loss_fn or known[0].loss_fn
    if attack is not None and ("algorithm" not in config.values or algorithm.loss_fn is None):
        loss_fn = attacks.measured(loss_fn, attack, model)
    if "clock" in config.values or algorithm.asynchrony is not None:
        clock = clock or made_on_host(config, source, seed, algorithm, params)
    sampler = sampler_of(config, loss_fn, clock)
    sampler = clocked(config, sampler, algorithm, clock) if clock else sampler
    with refusing(config.at("sampling")):
        cohort_shapes(sampler, algorithm, jax.eval_shape(algorithm.init, params, key), source.train.size)
    compose = (lambda build: build(sections)) if frozen is None else partial(freezing, sections, frozen)
    beside = {name: compose(build) for name, build in baselines_of(sections, algorithm).items()}
    return Parts(algorithm, params, sampler, loss_fn, key, beside, where_learning(finetune_of(sections), frozen), clock)


def _compose(sections: Sections) -> tuple[Algorithm, Tree, Any, LossFn]:
    """Build the algorithm of [algorithm], or of the other sections; also return its first params, model and loss."""
    if "algorithm" not in sections.config.values:
        return _composed(sections)
    algorithm, params = algorithm_of(sections)
    return algorithm, params, sections.known[0].model, algorithm.loss_fn or sections.known[0].loss_fn


def _composed(sections: Sections) -> tuple[Algorithm, Tree, Any, LossFn]:
    """Compose the algorithm of [client], [aggregator], [server] and [distillation]; also return its first params, model and loss."""
    config, known, first = sections.config, sections.known, sections.params
    several = "families" in config.at("model")
    client = config.at("client")
    works = [work_of(client, one.loss_fn) for one in known]
    batches = batches_of(client)
    families = [Family(work, one.clients, uplink_of(client)) for work, one in zip(works, known, strict=True)]
    model, loss_fn, server = known[0].model, known[0].loss_fn, server_of(config)
    if "distillation" in config.values:
        families, aggregator, server, model, loss_fn = distillation_of(sections, families, server)
    elif several:
        raise config.at("model", "families").error("their weights are not alike, so nothing but [distillation] can bring them together")
    else:
        aggregator = sections.aggregator_of(config.at("aggregator"))
    if sections.attacked is not None:
        both = [sections.attacked(family.work, aggregator) for family in families]
        families, aggregator = [family._replace(work=work) for family, (work, _) in zip(families, both, strict=True)], both[0][1]
    with refusing(config.at("engine")):
        work, uplink, params = (families, None, tuple(first)) if several else (families[0].work, families[0].uplink, first[0])
        algorithm = federate(
            work,
            aggregator,
            server or optimizer_server(optax.sgd(1.0)),
            batches=batches,
            population=sections.source.population,
            uplink=uplink,
            engine=make(config.at("engine"), "engine") if "engine" in config.values else None,
        )
    return algorithm, params, model, loss_fn


def mechanism_of(config: Config, source: Source, outputs: tuple[int, str]) -> Callable[[float], Mechanism | None]:
    """Return the function: noise multiplier -> the privacy mechanism of the configuration's aggregator, or None."""

    def at(noise_multiplier: float) -> Mechanism | None:
        table = with_noise(config, noise_multiplier).at("aggregator")
        return aggregator_of(table, defaults, source.population).privacy

    known = architectures(config, outputs, source)
    params = jax.eval_shape(known[0].model.init, jax.random.key(0), source.example)
    frozen = frozen_of(config, known[0].model, source.example, params)
    defaults = of_messages(config, others_of(frozen, params), soft_size(config, source, outputs[0]))
    return at


def settings_kept(config: Config) -> dict[str, Any]:
    """Return the settings that a run stores, and compares when resumed: paths are absolute, and the user's code is its hash."""
    values = changed(config, paths_of(config)).values
    code = fingerprints(config)
    return {name: value for name, value in values.items() if name not in ("grid", "code")} | ({"code": code} if code else {})


def sampler_of(config: Config, loss_fn: LossFn | None = None, clock: Made | None = None) -> Sampler:
    """Build the sampler of [sampling], with the samplers that it wraps; it may take the loss, and how long clients take by the clock."""
    durations = {"durations": clock("durations")} if clock and takes_durations(config) else {}
    return make(config.at("sampling"), "sampling", loss_fn=loss_fn, **durations)
