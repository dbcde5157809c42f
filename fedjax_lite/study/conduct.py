"""From an experiment and a grid to a `Study`: tracing, running what is not finished, putting the results in their places."""

import datetime
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import fingerprint
from fedjax_lite.engine.compute import compute
from fedjax_lite.engine.programs import Program, programs_of
from fedjax_lite.runner.environment import environment
from fedjax_lite.runner.progress import interruptible
from fedjax_lite.study.grid import Axis, cells_of, count_of, names_of
from fedjax_lite.study.results import Study
from fedjax_lite.study.unfinished import Kept


def conducted(
    experiment: Callable[..., Tree],
    axes: tuple[Axis, ...],
    choices: list[list[dict[str, Any]]],
    seeds: tuple[int, ...],
    given: Sequence[int],
    *,
    together: Any = None,
    rounds_of: Callable[[str, int], Sequence[int]],
    wanted: Collection[str] = (),
    same_names: bool = True,
    progress: bool = True,
    made: dict[str, Any],
    kept: Kept | None = None,
) -> Study:
    """The study of `experiment(seed=, **values)`, which is given `given[i]` as the seed for `seeds[i]`.

    Args:
        rounds_of: a curve's name and length -> the round of each of its points.
        wanted: curves that there must be.
        same_names: whether every cell must have results of the same names.
        made: what the study is made from; with `kept`, what it must agree with to be resumed.
        kept: where finished programs are written, and read if it is resumed.

    Raises:
        KeyboardInterrupt: with `kept` after the program that runs, by SIGTERM too.
    """
    together = None if together is None else count_of("together", together)
    started, date = time.perf_counter(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    runs = [cell | {"seed": seed} for cell in cells_of(choices) for seed in given]
    said = [cell for cell in names_of(axes) for _ in given]
    with _bar(progress) as bar:
        task = bar.add_task(f"runs; tracing {len(runs)}", total=None)
        programs = programs_of(experiment, runs, said, same_names)
        shapes = {name: x for program in programs for name, x in program.shapes.items()}
        curves = {name: tuple(rounds_of(name, len(x))) for name, x in shapes.items() if x.ndim}
        for name in wanted:
            if name not in curves:
                raise ValueError(f"study: no curve {name!r} that could have a target; there are {', '.join(curves) or 'none'}")
        without = {name: {run for p in programs if name not in p.shapes for run in p.runs} for name in shapes}
        lacking = {name: tuple(sorted({run // len(given) for run in found})) for name, found in without.items() if found}
        made = {"data": _closed_over(programs), **made}
        if kept and (finished := kept.begin(made, len(programs))):
            return finished
        results = {name: np.full((len(runs), *x.shape), np.nan if name in lacking else 0, x.dtype) for name, x in shapes.items()}

        def put(place: int, found: Mapping[str, np.ndarray]) -> int:
            for name, values in found.items():
                results[name][programs[place].runs] = values
            return len(programs[place].runs)

        before = kept.read(programs) if kept else {}
        completed = sum(put(place, found) for place, found in before.items())
        many = f"{len(programs)} program{'' if len(programs) == 1 else 's'}"
        bar.reset(task, total=len(runs), completed=completed, description=f"runs in {many}")
        left = [place for place in range(len(programs)) if place not in before]
        computed = zip(left, compute([programs[place] for place in left], together), strict=True)
        if kept is None:
            for place, found in computed:
                bar.advance(task, put(place, found))
        else:
            with interruptible(lambda text: bar.update(task, description=text), "program") as interrupted:
                for place, found in computed:
                    kept.add(place, found)
                    bar.advance(task, put(place, found))
                    if interrupted() and place != left[-1]:
                        raise KeyboardInterrupt
    shape = (*(len(axis.rows) for axis in axes), len(seeds))
    results = {name: x.reshape(*shape, *x.shape[1:]) for name, x in results.items()}
    seconds = kept.seconds() if kept else round(time.perf_counter() - started, 3)
    told = {"date": date, "seconds": seconds, **made, **environment()}
    return Study(axes, seeds, results, curves, len(programs), lacking, told)


def _closed_over(programs: Sequence[Program]) -> dict[str, Any]:
    """A fingerprint of the arrays that an experiment closes over, each once."""
    arrays = {id(x): x for program in programs for x in program.closed_over}
    plain = [jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in arrays.values()]
    return {"closed over": {"arrays": len(plain), "sha256": fingerprint(plain, ())["sha256"]}} if plain else {}


def _bar(show: bool) -> Progress:
    console = Console(stderr=True)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    left = TextColumn("left"), TimeRemainingColumn()
    return Progress(*columns, *left, console=console, disable=not (show and console.is_terminal), speed_estimate_period=86400)
