"""From an experiment and a grid to a `Study`: tracing, running what is not finished, putting the results in their places."""

import datetime
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import fingerprint
from fedjax_lite.engine.compute import compute
from fedjax_lite.engine.programs import Program, programs_of
from fedjax_lite.runner.deadline import Deadline
from fedjax_lite.runner.environment import environment
from fedjax_lite.runner.progress import draws, interruptible
from fedjax_lite.study.grid import Axis, cells_of, count_of, names_of
from fedjax_lite.study.results import Study
from fedjax_lite.study.unfinished import Unfinished


def conduct(
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
    kept: Unfinished | None = None,
    budget: Any = None,
) -> Study:
    """The study of `experiment(seed=, **values)`, which is given `given[i]` as the seed for `seeds[i]`.

    Args:
        rounds_of: a curve's name and length -> the round of each of its points.
        wanted: curves that there must be.
        same_names: whether every cell must have results of the same names.
        made: what the study is made from; with `kept`, what it must agree with to be resumed.
        kept: where finished programs are written, and read if it is resumed.
        budget: seconds after which no other program is begun that would end later; cells that were not run lack their results.

    Raises:
        KeyboardInterrupt: with `kept` after the program that runs, by SIGTERM too.
    """
    together, deadline = None if together is None else count_of("together", together), Deadline(budget)
    started, date = time.perf_counter(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    runs = [cell | {"seed": seed} for cell in cells_of(choices) for seed in given]
    said = [cell for cell in names_of(axes) for _ in given]
    with _bar(progress) as bar:
        task = bar.add_task(f"runs; tracing {len(runs)}", total=None)
        programs = programs_of(experiment, runs, said, same_names)
        curves = _curves(programs, rounds_of, wanted)
        made = {"data": _closed_over(programs), **made}
        if kept and (finished := kept.begin(made, len(programs))):
            return finished
        lacking = _lacking(programs, len(given))
        results = _blank(programs, len(runs), lacking)
        ran = _fill(results, programs, together, kept, deadline, bar, task)
    if len(ran) < len(programs):
        lacking = _lacking([p if place in ran else p._replace(shapes={}) for place, p in enumerate(programs)], len(given))
        results = {name: _missing(x, programs, ran) for name, x in results.items()}
        made |= {"unfinished": f"{len(ran)} of {len(programs)} programs were run in {deadline.seconds():.0f} s"}
    shape = (*(len(axis.rows) for axis in axes), len(seeds))
    results = {name: x.reshape(*shape, *x.shape[1:]) for name, x in results.items()}
    seconds = kept.seconds() if kept else round(time.perf_counter() - started, 3)
    told = {"date": date, "seconds": seconds, **made, **environment()}
    return Study(axes, seeds, results, curves, len(programs), lacking, told)


def _curves(
    programs: Sequence[Program], rounds_of: Callable[[str, int], Sequence[int]], wanted: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Name the rounds of each curve of the programs, once those wanted are among them."""
    curves = {name: tuple(rounds_of(name, len(x))) for name, x in _shapes(programs).items() if x.ndim}
    for name in wanted:
        if name not in curves:
            raise ValueError(f"study: no curve {name!r} that could have a target; there are {', '.join(curves) or 'none'}")
    return curves


def _lacking(programs: Sequence[Program], seeds: int) -> dict[str, tuple[int, ...]]:
    """Find the cells, of so many seeds each, whose programs lack a result, by its name."""
    without = {name: {run for p in programs if name not in p.shapes for run in p.runs} for name in _shapes(programs)}
    return {name: tuple(sorted({run // seeds for run in found})) for name, found in without.items() if found}


def _blank(programs: Sequence[Program], runs: int, lacking: Collection[str]) -> dict[str, np.ndarray]:
    """Make room for the programs' results of all runs: NaN where some are lacking, else 0."""
    shapes = _shapes(programs)
    return {name: np.full((runs, *x.shape), np.nan if name in lacking else 0, x.dtype) for name, x in shapes.items()}


def _shapes(programs: Sequence[Program]) -> dict[str, jax.ShapeDtypeStruct]:
    """Collect the shapes of all results that any of the programs has."""
    return {name: x for program in programs for name, x in program.shapes.items()}


def _fill(
    results: dict[str, np.ndarray],
    programs: Sequence[Program],
    together: int | None,
    kept: Unfinished | None,
    deadline: Deadline,
    bar: Progress,
    task: TaskID,
) -> set[int]:
    """Fill the results with what is kept of the programs and what is computed, and tell the bar's task; the places of these programs."""
    before = kept.read(programs) if kept else {}
    for place, found in before.items():
        _put(results, programs[place], found)
    total = sum(len(program.runs) for program in programs)
    completed = sum(len(programs[place].runs) for place in before)
    many = f"{len(programs)} program{'' if len(programs) == 1 else 's'}"
    bar.reset(task, total=total, completed=completed, description=f"runs in {many}")
    left = [place for place in range(len(programs)) if place not in before]
    ran = set(before)
    for place, found in _compute_left(programs, left, together, kept, lambda text: bar.update(task, description=text)):
        _put(results, programs[place], found)
        ran.add(place)
        bar.advance(task, len(programs[place].runs))
        deadline.lap()
        if deadline.passed():
            break
    return ran


def _missing(values: np.ndarray, programs: Sequence[Program], ran: Collection[int]) -> np.ndarray:
    """Return the results of all runs with NaN in those of the programs that were not run."""
    values = values if np.issubdtype(values.dtype, np.inexact) else values.astype(np.float64)
    for place, program in enumerate(programs):
        if place not in ran:
            values[program.runs] = np.nan
    return values


def _put(results: dict[str, np.ndarray], program: Program, found: Mapping[str, np.ndarray]) -> None:
    """Write what was found for a program's runs in their rows of the results."""
    for name, values in found.items():
        results[name][program.runs] = values


def _compute_left(
    programs: Sequence[Program], left: list[int], together: int | None, kept: Unfinished | None, note: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Compute the programs at the places left; with kept write each, and stop between two at a signal."""
    computed = zip(left, compute([programs[place] for place in left], together), strict=True)
    if kept is None:
        yield from computed
        return
    with interruptible(note, "program") as interrupted:
        for place, found in computed:
            kept.add(place, found)
            yield place, found
            if interrupted() and place != left[-1]:
                raise KeyboardInterrupt


def _closed_over(programs: Sequence[Program]) -> dict[str, Any]:
    """A fingerprint of the arrays that an experiment closes over, each once."""
    arrays = {id(x): x for program in programs for x in program.closed_over}
    plain = [jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in arrays.values()]
    return {"closed over": {"arrays": len(plain), "sha256": fingerprint(plain, ())["sha256"]}} if plain else {}


def _bar(show: bool) -> Progress:
    """Make a bar of runs and the time left; silent unless it is to show and there is a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    left = TextColumn("left"), TimeRemainingColumn()
    return Progress(*columns, *left, console=console, disable=not (show and draws(console)), speed_estimate_period=86400)
