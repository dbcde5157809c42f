"""A study from a configuration: each cell is the run of the same values."""

import json
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from fedjax_lite.base import Tree
from fedjax_lite.build import Parts, mechanism_of, options_of, parts, sampler_of
from fedjax_lite.config import Config, changed
from fedjax_lite.data.federated import FederatedData, Source
from fedjax_lite.evaluate import evaluate
from fedjax_lite.names import refusing
from fedjax_lite.privacy.settings import TARGET, automatic, solved, solved_choices
from fedjax_lite.privacy.spent import check_private
from fedjax_lite.simulate import advance
from fedjax_lite.sources import load_data, outputs_of
from fedjax_lite.study.alike import Alike, alike
from fedjax_lite.study.grid import cells_of, names_of
from fedjax_lite.study.results import Study
from fedjax_lite.study.study import conducted
from fedjax_lite.study.table import Grid, grid_of

__all__ = ["configured", "curves"]

OPTIONS = ("rounds", "evaluate_every")  # of [run]; the others are for runs with a folder of their own


def configured(config: Config) -> Callable[..., Study]:
    """Read a configuration's grid, load its data, and return the study with everything bound but `together` and `progress`.

    The model is evaluated every `evaluate_every` rounds, and a run's seed decides its data too, as in `fedjax-lite run`.

    Raises:
        ConfigError: for a grid that is none, an unknown path, whatever a cell of it is refused for.
    """
    grid, options = grid_of(config), options_of(config)
    for name in options:
        if name not in OPTIONS:
            raise config.error(["run", name], f"is not for studies, which take {' and '.join(OPTIONS)} only: leave it out")
    grid, config = _with_noise(config, grid)
    rounds, every = options["rounds"], min(options.get("evaluate_every", 10), options["rounds"])
    loaded: dict[str, Alike] = {}
    for cell, said in zip(cells_of(grid.choices), names_of(grid.axes), strict=True):
        here = changed(config, cell, grid.places)
        if _key(here) not in loaded:
            try:
                loaded[_key(here)] = _load(here, grid.seeds)
            except ValueError as error:
                raise ValueError(f"{error}; in the cell {said}") from error

    def experiment(seed, **values):
        here = changed(config, values, grid.places)
        source, outputs = loaded[_key(here)].of(seed)
        number = grid.seeds[seed] if isinstance(seed, int) else jnp.asarray(grid.seeds, jnp.uint32)[seed]
        made = parts(here, source, outputs, number)
        with refusing(here):  # what only shows when the parts meet
            check_private(made.algorithm.privacy, made.sampler, source.train.size, rounds)
            return curves(made, source, rounds, every)

    points = [*range(every, rounds + 1, every), *([rounds] if rounds % every else [])]
    places = range(len(grid.seeds))
    return partial(conducted, experiment, grid.axes, grid.choices, grid.seeds, places, rounds=points, same_names=False)


def _with_noise(config: Config, grid: Grid) -> tuple[Grid, Config]:
    """The grid and the configuration with the noise that their target epsilons ask for."""
    if not automatic(config):
        return grid, config
    source = load_data(config, grid.seeds[0])
    private = mechanism_of(config, source, outputs_of(config, source)), sampler_of(config), source.population
    choices, places = solved_choices(config, grid.choices, grid.places, *private)
    varied = any(TARGET in choice for axis in choices for choice in axis)
    return grid._replace(choices=choices, places=places), config if varied else solved(config, *private)


def curves(made: Parts, source: Source, rounds: int, every: int) -> dict[str, jax.Array]:
    """What a model is evaluated at, every so many rounds and at the end; pure.

    Returns:
        {"test_loss": `[evaluations]`, ...}; "train_" without held-out examples; and what rounds tell of other models than the global one
        ("teacher_accuracy", "ensemble_accuracy"). NaN where nothing was counted.
    """
    held_out, prefix = (source.train, "train_") if source.test is None else (source.test, "test_")

    def segment(state: Tree, length: int) -> tuple[Tree, dict[str, jax.Array]]:
        state, history = advance(made.algorithm, source.train, state, made.sampler, rounds=length)
        sums = evaluate(made.loss_fn, made.algorithm.params(state), held_out)
        others = {name: values[-1] for name, values in history.items() if name.endswith("_accuracy")}
        return state, others | {prefix + name: jax.tree.map(jnp.sum, mean).value() for name, mean in sums.items()}

    state, found = jax.lax.scan(lambda state, _: segment(state, every), made.algorithm.init(made.params, made.key), length=rounds // every)
    if rounds % every:
        last = segment(state, rounds % every)[1]
        found = {name: jnp.append(x, last[name]) for name, x in found.items()}
    return found


def _load(config: Config, seeds: Sequence[int]) -> Alike:
    """The data of every seed."""
    sources = []
    for seed in seeds:
        source = load_data(config, seed)
        if not isinstance(source.train, FederatedData):
            raise config.error(["data"], "is a store on disk, which is streamed: studies take data in memory")
        sources.append((source, outputs_of(config, source)))
    return alike(sources)


def _key(config: Config) -> str:
    """What tells data apart. A tracer has no text, so no number of [data] is an operand."""
    return json.dumps(config.values["data"], sort_keys=True)
