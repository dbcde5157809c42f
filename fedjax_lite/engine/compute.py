"""Compile and run a study's programs, with their runs dealt over devices."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from fedjax_lite import forms
from fedjax_lite.engine.over_runs import RUNS_AXIS
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.engine.programs import Program

MOST_AHEAD = 4  # programs that are compiled at once, at most
TOGETHER = 16  # runs that are vmapped at once, except on a CPU, where that is slower


def compute(programs: Sequence[Program], together: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Compile and run programs, `together` of their runs at once, dealt over the axis `runs` of the mesh in use.

    The next programs are compiled while a program runs.

    Yields:
        The results of each program, name -> `[runs, ...]`, in the order of `programs`.
    """
    ahead = min(os.cpu_count() or 1, MOST_AHEAD)
    waiting: deque[tuple[int, Any, Future]] = deque()
    pool, runner = ThreadPoolExecutor(ahead), ThreadPoolExecutor(1)
    try:
        for i in range(len(programs) + ahead):
            if i < len(programs):
                lowered, operands = _lowered(programs[i], together)
                waiting.append((len(programs[i].runs), operands, pool.submit(lowered.compile)))
            if i >= ahead and waiting:
                runs, operands, program = waiting.popleft()
                # In a thread, since a program that runs in the main thread would keep signals waiting.
                yield runner.submit(_called, program.result(), operands, runs).result()
    finally:
        for each in (pool, runner):
            each.shutdown(wait=False, cancel_futures=True)


def _called(program: Any, operands: tuple[Any, ...], runs: int) -> dict[str, np.ndarray]:
    """Call a compiled program; return its results `[runs, ...]` without the repeated last runs."""
    return {name: np.asarray(x)[:runs] for name, x in program(*operands).items()}


def _lowered(program: Program, together: int | None) -> tuple[Any, tuple[Any, ...]]:
    """Lower a program, ready to be compiled; also return its operands."""
    runs, devices = len(program.runs), jax.sharding.get_abstract_mesh().shape.get(RUNS_AXIS, 1)
    # On a CPU the arrays of a run alone stay in the cache; the arrays of vmapped runs do not.
    together = min(together or (1 if forms.cpu() else TOGETHER), -(-runs // devices))
    share = -(-runs // (devices * together)) * together
    index = jnp.minimum(jnp.arange(devices * share), runs - 1)  # repeats the last run, for equal shares

    def on_device(closed_over, numbers, index):
        def one(i):
            return program.call(closed_over, {name: x[i] for name, x in numbers.items()})

        return jax.lax.map(one, index, batch_size=together if together > 1 else None)

    if devices > 1:
        specs = (PartitionSpec(), PartitionSpec(), PartitionSpec(RUNS_AXIS))
        on_device = jax.shard_map(on_device, in_specs=specs, out_specs=PartitionSpec(RUNS_AXIS), check_vma=False)
    operands = everywhere((program.closed_over, program.numbers, index))
    return jax.jit(on_device).lower(*operands), operands
