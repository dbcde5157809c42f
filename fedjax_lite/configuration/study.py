"""Make a study of a configuration with a grid; each cell gives the numbers of a run with the same values."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Mean, Tree
from fedjax_lite.comparison.bands import bands_of
from fedjax_lite.configuration.build import Parts, mechanism_of, parts, sampler_of
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.clock import made_on_host, takes_durations
from fedjax_lite.configuration.code import fingerprints
from fedjax_lite.configuration.config import changed
from fedjax_lite.configuration.data import load_data, losses_of, outputs_of
from fedjax_lite.configuration.grid import Grid, grid_of
from fedjax_lite.configuration.privacy import TARGET, automatic, settings_of, solved, solved_choices
from fedjax_lite.configuration.run import options_of
from fedjax_lite.configuration.seeds import SeedData, stack_seeds
from fedjax_lite.configuration.table import Config
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import Source
from fedjax_lite.evaluation import evaluate_algorithm, evaluate_further, numbers
from fedjax_lite.metrics import prefix_of
from fedjax_lite.privacy.budget import check_private, delta_of, is_central
from fedjax_lite.report.staleness import ages_counted
from fedjax_lite.runner.clients import check_clients
from fedjax_lite.runner.environment import environment
from fedjax_lite.runner.fit import Setup
from fedjax_lite.sampling.draw import ready
from fedjax_lite.simulate import advance
from fedjax_lite.study.conduct import conduct
from fedjax_lite.study.epsilons import with_epsilons
from fedjax_lite.study.grid import cells_of, names_of
from fedjax_lite.study.results import Study

__all__ = ["study_of", "curves"]

FREE = ("name", "data", "expected")  # settings that may differ when a study is resumed: the data itself has a fingerprint
OPTIONS = ("rounds", "evaluate_every")  # keys of [run] for studies; the other keys are for runs with a folder of their own


def study_of(config: Config) -> Callable[..., Study]:
    """Read a configuration's grid, load its data, and return a function of `together`, `wanted`, `progress` and `kept` that runs the study.

    The model is evaluated every `evaluate_every` rounds, and a run's seed decides its data too, as in `fedjax-lite run`.

    Raises:
        ConfigError: for a wrong grid, an unknown path, and a cell whose parts are refused.
    """
    grid, options = grid_of(config), options_of(config)
    for name in options:
        if name not in OPTIONS:
            raise config.error(("run", name), f"is not for studies, which take {', '.join(OPTIONS)} and finetune only: leave it out")
    if "expected" in config.values:
        with refusing(config.at("expected")):
            bands_of(config.values["expected"])
    if "baselines" in config.values:
        raise config.error(("baselines",), "is not for studies: leave it out, and run one cell with it")
    grid, config = _with_noise(config, grid)
    rounds, every = options["rounds"], min(options.get("evaluate_every", 10), options["rounds"])
    loaded: dict[str, SeedData] = {}
    data_facts: dict[str, Any] = {}
    private: list[bool] = []  # whether each algorithm that was traced is private
    for cell, name_of_cell in zip(cells_of(grid.choices), names_of(grid.axes), strict=True):
        here = changed(config, cell, grid.origins)
        if _key(here) not in loaded:
            try:
                loaded[_key(here)], facts = _load(here, grid.seeds)
            except ValueError as error:
                raise ValueError(f"{error}; in the cell {name_of_cell}") from error
            of = [(path, x) for path, x in cell.items() if path.split(".")[0] == "data"]
            varied = ", ".join(f"{path}={x if isinstance(x, str) else json.dumps(x)}" for path, x in of)
            data_facts |= {f"{name} of {varied}" if varied else name: x for name, x in facts.items()}

    clocks: dict[str, Any] = {}
    for cell in cells_of(grid.choices):
        _make_clocks(changed(config, cell, grid.origins), loaded, grid.seeds, clocks)

    def experiment(seed, **values):
        here = changed(config, values, grid.origins)
        source, outputs = loaded[_key(here)].of(seed)
        number = grid.seeds[seed] if isinstance(seed, int) else jnp.asarray(grid.seeds, jnp.uint32)[seed]
        made = parts(here, source, outputs, number, clock=lambda what: jax.tree.map(lambda x: x[seed], clocks[_clock_key(here, what)]))
        private.append(made.algorithm.privacy is not None)
        with refusing(here):  # errors that only show when the parts meet
            check_private(made.algorithm.privacy, made.sampler, source.train.size, rounds)
            setup = Setup(made.algorithm, source.train, made.params, made.sampler, rounds, made.key, made.loss_fn, source.test, every)
            check_clients(setup, made.finetune, source.new)
            return curves(made, source, rounds, every)

    def private_of(cell):
        here = changed(config, cell, grid.origins)
        source, outputs = loaded[_key(here)].of(0)
        delta = delta_of(settings_of(here, source.population).delta, source.population)
        made: list[Parts] = []
        jax.eval_shape(lambda: made.append(parts(here, source, outputs, grid.seeds[0])))
        return made[0].algorithm.privacy, made[0].sampler, source.population, delta

    def run(**options):
        private.clear()
        study = conduct(
            experiment,
            grid.axes,
            grid.choices,
            grid.seeds,
            range(len(grid.seeds)),
            rounds_of=lambda curve, length: points,
            same_names=False,
            made=made,
            **options,
        )
        beside = {"source": config.values["data"]} | ({"expected": expected} if (expected := config.values.get("expected")) else {})
        study = study._replace(made=study.made | beside)  # which do not make it another study
        if ages := _staleness(config, grid, clocks):
            study = study._replace(made=study.made | {"staleness": ages})
        if not any(private) or "privacy" in study.made:
            return study
        central = all(is_central(each.of(0)[0].test) for each in loaded.values())
        return with_epsilons(study, [partial(private_of, cell) for cell in cells_of(grid.choices)], rounds, central)

    points = [*range(every, rounds + 1, every), *([rounds] if rounds % every else [])]
    made = {"config": {name: x for name, x in config.values.items() if name not in FREE}, "data": data_facts, "code": environment()["code"]}
    made |= {"own code": code} if (code := fingerprints(config)) else {}
    return run


def _with_noise(config: Config, grid: Grid) -> tuple[Grid, Config]:
    """Return grid and configuration with the noise multipliers that their target epsilons need."""
    if not automatic(config):
        return grid, config
    source = load_data(config, grid.seeds[0])
    private = mechanism_of(config, source, outputs_of(config, source)), sampler_of(config), source.population
    choices, origins = solved_choices(config, grid.choices, grid.origins, *private)
    varied = any(TARGET in choice for axis in choices for choice in axis)
    return grid._replace(choices=choices, origins=origins), config if varied else solved(config, *private)


def curves(made: Parts, source: Source, rounds: int, every: int) -> dict[str, jax.Array]:
    """Run rounds and evaluate the model after every `every` rounds and at the end; pure.

    Returns:
        {"test_loss": `[evaluations]`, ...}; "train_" without held-out examples; and the metrics of the last round before each evaluation,
        as a run records them. NaN where no example was counted. Where there are several clients "test_client_loss" is the mean over
        them, "test_worst_loss" that over the worst tenth. What is measured at the end alone (after fine-tuning, on new
        clients) is a number.
    """
    algorithm, loss_fn, prefix = made.algorithm, made.loss_fn, prefix_of(source.test)
    given = source.train, source.train if source.test is None else source.test

    def segment(state: Tree, length: int) -> tuple[Tree, dict[str, jax.Array]]:
        state, history = advance(algorithm, source.train, state, made.sampler, rounds=length)
        trained = {name: values[-1] for name, values in history.items()}
        return state, trained | prefixed(evaluate_algorithm(algorithm, loss_fn, state, *given))

    def prefixed(sums: dict[str, Mean]) -> dict[str, jax.Array]:
        return {prefix + name: value for name, value in numbers(sums).items()}

    state = ready(made.sampler, algorithm.init(made.params, made.key), source.train.size)
    state, found = jax.lax.scan(lambda state, _: segment(state, every), state, length=rounds // every)
    if rounds % every:
        state, last = segment(state, rounds % every)
        found = {name: jnp.append(x, last[name]) for name, x in found.items()}
    return found | prefixed(evaluate_further(algorithm, loss_fn, state, *given, made.finetune, source.new, made.key))


def _load(config: Config, seeds: Sequence[int]) -> tuple[SeedData, dict[str, Any]]:
    """Load the data of every seed; also return the fingerprints of its parts, only once if all seeds have the same."""
    sources = []
    for seed in seeds:
        source = load_data(config, seed)
        if not isinstance(source.train, FederatedData):
            raise config.error(("data",), "is a store on disk, which is streamed: studies take data in memory")
        sources.append((source, outputs_of(config, source)))
    facts = [_fingerprints(source) for source, _ in sources]
    if all(each == facts[0] for each in facts):
        return stack_seeds(sources), facts[0]
    return stack_seeds(sources), {f"{part} of seed {seed}": x for seed, each in zip(seeds, facts, strict=True) for part, x in each.items()}


def _make_clocks(config: Config, loaded: dict[str, SeedData], seeds: Sequence[int], clocks: dict[str, Any]) -> None:
    """Add what the host makes for [clock], the devices and the table of arrivals of every seed, in stacks by `_clock_key`."""
    known = _clock_key(config, "table")  # differs if anything does that a clock is made of
    if "clock" not in config.values or known in clocks:
        return
    algorithm, params, *_ = parts(config, *loaded[_key(config)].of(0), seeds[0])
    each = [made_on_host(config, loaded[_key(config)].of(i)[0], seed, algorithm, params) for i, seed in enumerate(seeds)]
    clocks[known] = None
    beside = "table" if algorithm.asynchrony is not None else "durations" if takes_durations(config) else "devices"
    for what in {"devices", beside}:
        with refusing(config.at("clock")):
            made = [of_seed(what) for of_seed in each]
        clocks[_clock_key(config, what)] = jax.tree.map(lambda *leaves: jnp.stack(list(map(jnp.asarray, leaves))), *made)


def _staleness(config: Config, grid: Grid, clocks: dict[str, Any]) -> dict[str, list[int]]:
    """Count the uploads of all seeds by their age, for each cell whose server is asynchronous."""
    cells = zip(names_of(grid.axes), cells_of(grid.choices), strict=True)
    found = {name: clocks.get(_clock_key(changed(config, cell, grid.origins), "table")) for name, cell in cells}
    return {name: ages_counted(np.asarray(table.ids), np.asarray(table.ages)) for name, table in found.items() if table is not None}


def _clock_key(config: Config, what: str) -> str:
    """Return a text that differs if the devices, or the table of arrivals, do; a tracer has none, so no such number is an operand."""
    values = config.values
    parts = [values["clock"].get("devices"), values["clock"].get("seed")] if what == "devices" else [values.get("clock")]
    if what != "devices":
        client = {name: x for name, x in values.get("client", {}).items() if name != "optimizer"}
        parts += [values.get(name) for name in ("sampling", "model", "algorithm", "aggregator", "run")] + [client]
    return json.dumps([what, _key(config), parts], sort_keys=True)


def _fingerprints(source: Source) -> dict[str, Any]:
    """Return the fingerprints of a source's parts."""
    parts = source._replace(new=None)._asdict()
    parts |= {} if source.new is None else {f"new {name}": part for name, part in source.new._asdict().items()}
    return {name: part.fingerprint() for name, part in parts.items() if part is not None}


def _key(config: Config) -> str:
    """Return a text that differs if [data] or its labels' meaning does. A tracer has no text, so no number of [data] is an operand."""
    return json.dumps([config.values["data"], losses_of(config)], sort_keys=True)
