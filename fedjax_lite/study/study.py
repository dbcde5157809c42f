"""`fl.study`: an experiment over a grid of values and seeds."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedjax_lite.base import Tree
from fedjax_lite.study.compute import compute
from fedjax_lite.study.grid import Axis, axes_of, cells_of, names_of
from fedjax_lite.study.programs import programs_of
from fedjax_lite.study.results import Study

__all__ = ["study"]


def study(
    experiment: Callable[..., Tree],
    grid: Mapping[Any, Any],
    seeds: int | Sequence[int] = 5,
    *,
    together: int | None = None,
    every: int = 1,
    progress: bool = True,
) -> Study:
    """Run an experiment for every combination of a grid's values, with several seeds each.

    All combinations that differ in numbers only are one compiled program, whose runs follow one another or are vmapped; what
    cannot be traced (a text, an object, a number that sets a shape) is a program for each of its values. Arrays that the
    experiment closes over are operands of the programs, never constants in them. With the axis `runs` in the mesh in use, each of
    its devices takes a share of the runs.

    Args:
        experiment: `experiment(key, **values) -> {"name": Array, ...}`, pure; each result a number, or a curve `[rounds]`.
        grid: name -> its values: numbers, texts, any objects (of these give a dict label -> value). For values that change
            together: a tuple of names -> rows of values.
        seeds: how many, 0, 1, ...; or which. A run's key is `jax.random.key(seed)`.
        together: how many runs are vmapped at once; memory grows with it. By default 1 on a CPU, elsewhere 16.
        every: rounds from one point of a curve to the next.
        progress: show a bar if the output is a terminal.

    Returns:
        A `Study`: plain data, with `table`, `save` and `load`. A run that diverged is kept as it is.

    Raises:
        ValueError: before any run: a grid that is none, what the experiment refuses, with the values it refuses.

    >>> found = study(lambda key, rate, name: {"x": rate * len(name)}, {"rate": [1.0, 2.0], "name": ["a", "bc"]}, seeds=3)
    >>> found.results["x"].shape, found.programs
    ((2, 2, 3), 2)
    >>> found.table("x", best="min")[1]
    {'rate': 1.0, 'name': 'bc', 'mean': 2.0, 'low': 2.0, 'high': 2.0, 'seeds': 3, 'diverged': 0, 'rank': 2}
    """
    seeds = seeds_of(seeds)
    axes, choices = axes_of(grid)
    signature = inspect.signature(experiment)
    try:
        signature.bind(None, **{name: None for axis in axes for name in axis.names})
    except TypeError as error:
        raise ValueError(f"study: the grid does not fit the experiment{signature}: {error}") from None

    def run(seed, **values):
        return experiment(jax.random.key(seed), **values)

    return conducted(run, axes, choices, seeds, seeds, together=together, every=every, progress=progress)


def conducted(
    experiment: Callable[..., Tree],
    axes: tuple[Axis, ...],
    choices: list[list[dict[str, Any]]],
    seeds: tuple[int, ...],
    given: Sequence[int],
    *,
    together: int | None = None,
    every: int = 1,
    rounds: Sequence[int] = (),
    wanted: Collection[str] = (),
    same_names: bool = True,
    progress: bool = True,
) -> Study:
    """The study of `experiment(seed=, **values)`, which is given `given[i]` as the seed for `seeds[i]`.

    Args:
        rounds: of each point of a curve; by default every, 2 every, ...
        wanted: curves that there must be.
        same_names: whether every cell must have results of the same names.
    """
    for name, value in (("together", 1 if together is None else together), ("every", every)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"study: {name} must be a whole number of at least 1, got {value!r}")
    runs = [cell | {"seed": seed} for cell in cells_of(choices) for seed in given]
    said = [cell for cell in names_of(axes) for _ in given]
    console = Console(stderr=True)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task(f"programs; tracing {len(runs)} runs", total=None)
        programs = programs_of(experiment, runs, said, same_names)
        shapes = {name: x for program in programs for name, x in program.shapes.items()}
        there = [name for name, x in shapes.items() if x.ndim]
        for name in wanted:
            if name not in there:
                raise ValueError(f"study: no curve {name!r} that could have a target; there are {', '.join(there) or 'none'}")
        without = {name: {run for p in programs if name not in p.shapes for run in p.runs} for name in shapes}
        lacking = {name: tuple(sorted({run // len(given) for run in found})) for name, found in without.items() if found}
        bar.update(task, total=len(programs), description=f"programs of {len(runs)} runs")
        results = {name: np.full((len(runs), *x.shape), np.nan if name in lacking else 0, x.dtype) for name, x in shapes.items()}
        for program, found in zip(programs, compute(programs, together), strict=True):
            for name, values in found.items():
                results[name][program.runs] = values
            bar.advance(task)
    shape = (*(len(axis.rows) for axis in axes), len(seeds))
    results = {name: x.reshape(*shape, *x.shape[1:]) for name, x in results.items()}
    lengths = {name: x.shape[-1] for name, x in results.items() if x.ndim > len(shape)}
    curves = {name: tuple(rounds) if len(rounds) == n else tuple(range(every, every * n + 1, every)) for name, n in lengths.items()}
    return Study(axes, seeds, results, curves, len(programs), lacking)


def seeds_of(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Seeds by their number, or as they are, once they can be keys."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        return tuple(range(seeds))
    listed = [] if isinstance(seeds, int) else [int(seed) if isinstance(seed, np.integer) else seed for seed in seeds]
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31 for seed in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise ValueError(f"study: seeds must be a number of at least 1, or different whole numbers from 0 to 2^31 - 1, got {seeds!r}")
    return tuple(listed)
