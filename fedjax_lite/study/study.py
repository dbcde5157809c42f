"""`fl.study`: an experiment over a grid of values and seeds."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Number, Tree
from fedjax_lite.study.conduct import conduct
from fedjax_lite.study.grid import axes_of, count_of, python
from fedjax_lite.study.results import Study

__all__ = ["study"]

Count = Number | np.generic | None  # `count_of` turns a number of each type into an int


def study(
    experiment: Callable[..., Tree],
    grid: Mapping[Any, Any],
    seeds: Count | Sequence[Any] | np.ndarray = 5,
    *,
    together: Count = None,
    every: Count = None,
    rounds: Count = None,
    budget: Number | None = None,
    progress: bool = True,
) -> Study:
    """Run an experiment for every combination of a grid's values, with several seeds each.

    All combinations that differ in numbers only are one compiled program, whose runs follow one another or are vmapped; what
    cannot be traced (a text, an object, a number that sets a shape) is a program for each of its values. Arrays that the
    experiment closes over are operands of the programs, never constants in them. With the axis `runs` in the mesh in use, each of
    its devices takes a share of the runs.

    Args:
        experiment: `experiment(key, **values) -> {"name": Array, ...}`, pure; each result a number, or a curve `[rounds]`.
        grid: name -> its values: numbers, texts, or other objects as a dict label -> object. For values that change together: a
            tuple of names -> rows of values.
        seeds: the number of seeds 0, 1, ..., or the seeds themselves. A run's key is `jax.random.key(seed)`.
        together: how many runs are vmapped at once; memory grows with `together`. By default 1 on a CPU, elsewhere 16.
        every: rounds from one point of a curve to the next, as where a model is evaluated; for more than 1 give `rounds` too.
        rounds: how many rounds a run has, the round of each curve's last point; by default a curve has a point a round.
        budget: seconds after which the study is to have ended: no program is begun that would take longer by the longest before it. Cells
            that were not run have no numbers, and `made["unfinished"]` says how many programs were.
        progress: show a bar if the output is a terminal or a notebook.

    Returns:
        A `Study`: plain data, with `table`, `save` and `load`; printed, its cells by rank, and in a notebook its report. A run that
        diverged is kept as it is.

    Raises:
        ValueError: before the first run: for a wrong grid, for values that the experiment refuses, for curves whose lengths do not
            fit `every` and `rounds`.

    >>> found = study(lambda key, rate, name: {"x": rate * len(name)}, {"rate": [1.0, 2.0], "name": ["a", "bc"]}, seeds=3)
    >>> found.results["x"].shape, found.programs
    ((2, 2, 3), 2)
    >>> found.table("x", best="min")[1]
    {'rate': 1.0, 'name': 'bc', 'mean': 2.0, 'low': 2.0, 'high': 2.0, 'seeds': 3, 'diverged': 0, 'rank': 2}
    """
    seeds = seeds_of(seeds)
    every, rounds = (None if value is None else count_of(name, value) for name, value in (("every", every), ("rounds", rounds)))
    axes, choices = axes_of(grid)
    signature = inspect.signature(experiment)
    try:
        signature.bind(None, **{name: None for axis in axes for name in axis.names})
    except TypeError as error:
        raise ValueError(f"study: the grid does not fit the experiment{signature}: {error}") from None

    def labels(curve, points):
        return _rounds_of(curve, points, every, rounds)

    def run(seed, **values):
        return experiment(jax.random.key(seed), **values)

    made = {"experiment": _source(experiment)}
    return conduct(run, axes, choices, seeds, seeds, together=together, rounds_of=labels, budget=budget, progress=progress, made=made)


def _rounds_of(curve: str, points: int, every: int | None, rounds: int | None) -> range:
    """Return the round of each point of a curve.

    >>> list(_rounds_of("loss", 3, None, None)), list(_rounds_of("loss", 3, None, 30))
    ([1, 2, 3], [10, 20, 30])
    """
    if rounds is None and every not in (1, None):
        raise ValueError(
            f"study: with every={every} the curve {curve!r} of {points} points would end at round {points * every}: "
            f"say rounds={points * every} if it does, or leave every out if its points are the rounds 1 to {points}"
        )
    step = rounds / points if rounds else 1
    if step != int(step) or every not in (step, None):
        given = f"rounds={rounds}" + (f" and every={every}" if every else "")
        raise ValueError(f"study: the curve {curve!r} has {points} points, which does not fit {given}")
    return range(int(step), int(step) * points + 1, int(step))


def _source(experiment: Callable[..., Tree]) -> dict[str, Any]:
    """Return an experiment's name and, where known, a hash of its source text, which leaves out functions that it calls."""
    source = {"name": getattr(experiment, "__qualname__", type(experiment).__name__)}
    try:
        return source | {"sha256": hashlib.sha256(inspect.getsource(experiment).encode()).hexdigest()[:16]}
    except (OSError, TypeError):
        return source


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """Return seeds 0, 1, ... if `seeds` is their number, else the seeds of the list; refuse seeds that can't make keys."""
    seeds = python(seeds)
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        return tuple(range(seeds))
    sequence = isinstance(seeds, Sequence | np.ndarray | jax.Array) and not isinstance(seeds, str) and np.ndim(seeds) == 1
    listed = [python(seed) for seed in seeds] if sequence else []
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31 for seed in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise ValueError(f"study: seeds must be a number of at least 1, or different whole numbers from 0 to 2^31 - 1, got {seeds!r}")
    return tuple(listed)
