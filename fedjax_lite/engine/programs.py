"""Group a study's runs into programs: numbers and seeds are operands; each other value has a program of its own."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.engine.over_runs import RUNS_AXIS
from fedjax_lite.engine.transforms import convert_closure

Values = dict[str, Any]  # one run's values by name, with its seed


class Program(NamedTuple):
    """One program for runs that differ in numbers only."""

    runs: list[int]  # indices of the study's runs
    call: Callable[..., dict[str, jax.Array]]  # closed_over, numbers of one run -> its results
    closed_over: Sequence[Any]  # arrays that the experiment closes over
    numbers: dict[str, np.ndarray]  # operand -> [runs]
    shapes: dict[str, jax.ShapeDtypeStruct]  # result -> shape in one run


def programs_of(experiment: Callable[..., Tree], runs: Sequence[Values], cells: Sequence[str], same_names: bool = True) -> list[Program]:
    """Trace every program of a study; nothing is compiled or run.

    A name with only numbers as values is an operand. If tracing fails, for instance since the number sets a shape, each value has a
    program. Every value is first traced as a Python number, because parts check Python numbers only.

    Args:
        experiment: called with a run's values by keyword.
        runs: the values of each run.
        cells: a text for each run's cell, for errors.
        same_names: whether every run must give results of the same names.

    Raises:
        ValueError: for an error of the experiment, naming the cell; for results of different names or shapes.
    """
    numeric = {name for name in runs[0] if all(is_operand(run[name]) for run in runs)}
    programs: list[Program] = []
    for group in _alike(runs, range(len(runs)), [name for name in runs[0] if name not in numeric]):
        for i in _covering(runs, group, numeric):
            _check(experiment, runs[i], cells[i])
        programs += _traced(experiment, runs, group, numeric)
    first = programs[0]
    for program in programs:
        others = same_names and program.shapes != first.shapes
        if others or any(program.shapes[name] != first.shapes[name] for name in program.shapes.keys() & first.shapes.keys()):
            raise ValueError(
                f"study: the results in the cell {cells[program.runs[0]]} are {_text(program.shapes)}, in the cell "
                f"{cells[first.runs[0]]} {_text(first.shapes)}: make them the same for every cell"
            )
    return programs


def _check(experiment: Callable[..., Tree], run: Values, cell: str) -> None:
    """Trace one run with its Python numbers; an error names the cell."""
    try:
        with _as_on_one_device():
            jax.eval_shape(lambda: _checked(experiment(**run)))
    except ValueError as error:
        raise ValueError(f"{error}; in the cell {cell}" if cell else str(error)) from error
    except Exception as error:
        error.add_note(f"in the study's cell {cell}")
        raise


def _traced(experiment: Callable[..., Tree], runs: Sequence[Values], group: list[int], numeric: Collection[str]) -> list[Program]:
    """Trace a group of runs as one program; if a number cannot be an operand, as a program for each of its values."""
    moving = [name for name in runs[0] if name in numeric and len({runs[i][name] for i in group}) > 1]
    try:
        return [_program(experiment, runs, group, moving)]
    except Exception:  # of every type: tracing with plain numbers raised none
        if not moving:
            raise
    operands: list[str] = []
    for name in moving:
        try:
            _program(experiment, runs, group, [*operands, name])
            operands.append(name)
        except Exception:
            continue
    others = [name for name in moving if name not in operands] or moving
    return [program for part in _alike(runs, group, others) for program in _traced(experiment, runs, part, numeric)]


def _program(experiment: Callable[..., Tree], runs: Sequence[Values], group: list[int], operands: Sequence[str]) -> Program:
    """Trace one program with stand-ins for `operands`."""
    fixed = {name: value for name, value in runs[group[0]].items() if name not in operands}
    numbers = {name: _column([runs[i][name] for i in group]) for name in operands}
    # Weak types, like Python's numbers: a learning rate must not make a bfloat16 model float32.
    stand_ins = {name: jax.ShapeDtypeStruct((), x.dtype, weak_type=True) for name, x in numbers.items()}
    with _as_on_one_device():
        call, closed_over = convert_closure(lambda numbers: _checked(experiment(**fixed, **numbers)), stand_ins)
        shapes = jax.eval_shape(call, closed_over, stand_ins)
    return Program(list(group), call, closed_over, numbers, {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in shapes.items()})


def _as_on_one_device() -> AbstractContextManager[Any]:
    """Trace without the mesh that the runs are dealt over: inside the `shard_map` of `compute` each run has one device."""
    dealt = RUNS_AXIS in jax.sharding.get_abstract_mesh().shape
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())) if dealt else nullcontext()


def _column(values: list[Any]) -> np.ndarray:
    """Turn Python numbers into an array of jax's default int or float dtype."""
    kind = int if all(isinstance(value, int) for value in values) else float
    return np.asarray(values, jax.dtypes.canonicalize_dtype(kind))


def _checked(results: Any) -> dict[str, jax.Array]:
    """Return an experiment's results as arrays; refuse results that are no dict of numbers and curves `[rounds]`."""
    if not isinstance(results, dict) or not results:
        raise ValueError(f"study: the experiment must return a dict of results by name, got {type(results).__name__}")
    for name, x in results.items():
        kind = jnp.result_type(x) if isinstance(x, jax.Array | np.ndarray | np.generic | int | float) else None
        real = kind is not None and (
            jnp.issubdtype(kind, jnp.bool_) or jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)
        )
        if not real or np.ndim(x) > 1 or not np.size(x):
            got = type(x).__name__ if kind is None else f"{kind}{list(np.shape(x))}"
            raise ValueError(f"study: the result {name!r} must be a number or a curve [rounds], got {got}")
    return {str(name): jnp.asarray(x) for name, x in results.items()}


def _alike(runs: Sequence[Values], group: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """Split a group into parts whose runs have the same values for `names`."""
    parts: list[list[int]] = []
    for i in group:
        for part in parts:
            if all(_same(runs[i][name], runs[part[0]][name]) for name in names):
                part.append(i)
                break
        else:
            parts.append([i])
    return parts


def _same(a: Any, b: Any) -> bool:
    """Return whether two values have one type and are equal; arrays are the same only if identical."""
    if a is b:
        return True
    try:
        return type(a) is type(b) and bool(a == b)
    except (TypeError, ValueError):  # arrays have no truth value
        return False


def _covering(runs: Sequence[Values], group: Sequence[int], names: Collection[str]) -> list[int]:
    """Choose few runs of a group that together have every value of `names`, seeds left out."""
    facts = {i: {(name, runs[i][name]) for name in names if name != "seed"} for i in group}
    chosen, wanted = [group[0]], set().union(*facts.values()) - facts[group[0]]
    while wanted:
        chosen.append(max(group, key=lambda i: len(wanted & facts[i])))
        wanted -= facts[chosen[-1]]
    return chosen


def _text(shapes: dict[str, jax.ShapeDtypeStruct]) -> str:
    """Write names, dtypes and shapes of results."""
    return ", ".join(f"{name} {x.dtype}{list(x.shape)}" for name, x in shapes.items())


def is_operand(value: Any) -> bool:
    """Return whether `value` can be an operand: a float, or an int of absolute value below 2^31, and no bool.

    >>> is_operand(1), is_operand(0.5), is_operand(True), is_operand("1")
    (True, True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and (isinstance(value, float) or abs(value) < 2**31)
