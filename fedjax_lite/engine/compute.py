"""Compiling and running a study's programs, their runs dealt over the devices."""

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
from fedjax_lite.engine.over_runs import AXIS
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.engine.programs import Program

MOST_AHEAD = 4  # programs that are compiled at once
TOGETHER = 16  # runs that are vmapped at once where that is not the slower way


def compute(programs: Sequence[Program], together: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Compile and run programs, a number of their runs at once, dealt over the axis `runs` of the mesh in use.

    The next programs are compiled while one runs.

    Yields:
        The results of each program, `[runs, ...]`, in their order.
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
                # In a thread, since a program that runs in this one would keep signals waiting.
                yield runner.submit(_called, program.result(), operands, runs).result()
    finally:
        for each in (pool, runner):
            each.shutdown(wait=False, cancel_futures=True)


def _called(program: Any, operands: tuple[Any, ...], runs: int) -> dict[str, np.ndarray]:
    """The results of a compiled program, without the runs that fill it up."""
    return {name: np.asarray(x)[:runs] for name, x in program(*operands).items()}


def _lowered(program: Program, together: int | None) -> tuple[Any, tuple[Any, ...]]:
    """A program ready to be compiled, and its operands."""
    runs, devices = len(program.runs), jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)
    # On a CPU a run's arrays stay in the cache; runs side by side do not.
    together = min(together or (1 if forms.cpu() else TOGETHER), -(-runs // devices))
    share = -(-runs // (devices * together)) * together
    index = jnp.minimum(jnp.arange(devices * share), runs - 1)  # to fill up, the last run is repeated

    def on_device(closed_over, numbers, index):
        def one(i):
            return program.call(closed_over, {name: x[i] for name, x in numbers.items()})

        return jax.lax.map(one, index, batch_size=together if together > 1 else None)

    if devices > 1:
        specs = (PartitionSpec(), PartitionSpec(), PartitionSpec(AXIS))
        on_device = jax.shard_map(on_device, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)
    operands = everywhere((program.closed_over, program.numbers, index))
    return jax.jit(on_device).lower(*operands), operands
