"""Measure the best number of lanes: time each candidate on stand-ins for the arrays of a round."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, Tree
from fedjax_lite.engine.transforms import convert_closure
from fedjax_lite.tree import is_key

LONG_ENOUGH = 0.1  # seconds that a timing must take to be trusted
MEAN_STEPS = 4  # local steps of a client in a timing, on average


def fastest(train: Callable[[int], Callable], cohort: Client, rows: Tree, candidates: Sequence[int]) -> int:
    """Return the candidate that takes most local steps a second; stop after a candidate less than half as fast as the best.

    Args:
        train: lanes -> a function of cohort and rows, both stacks.
        cohort, rows: only their shapes matter. Cohort, rows and arrays that `train` closes over may be tracers: zeros, which take
            as long, stand in for tracers.
        candidates: numbers of lanes, ascending.
    """
    rates: dict[int, float] = {}
    with jax.ensure_compile_time_eval():
        for lanes in candidates:
            try:
                rates[lanes] = _steps_a_second(train(lanes), cohort, rows, lanes)
            except jax.errors.JaxRuntimeError:  # too many lanes for the device's memory, as are the candidates after
                if not rates:
                    raise
                break
            if rates[lanes] < 0.5 * max(rates.values()):
                break
    return max(rates, key=lambda lanes: rates[lanes])


def _steps_a_second(train: Callable, cohort: Client, rows: Tree, lanes: int) -> float:
    """Time `train` on more and more busy clients, until a run takes `LONG_ENOUGH`; return local steps a second."""
    call, closed_over = convert_closure(train, cohort, rows)
    closed_over, cohort, rows = jax.tree.map(_stand_in, (list(closed_over), cohort, rows))
    program = jax.jit(call).lower(closed_over, cohort, rows).compile()
    clients = cohort.steps.shape[0]
    busy = lanes
    while True:
        steps = np.zeros(clients, np.int32)
        quantiles = (np.arange(min(busy, clients)) + 0.5) / min(busy, clients)
        steps[: len(quantiles)] = np.ceil(-MEAN_STEPS * np.log1p(-quantiles))  # a ragged cohort: quantiles of an exponential
        trial = cohort._replace(steps=jnp.asarray(steps))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(program(closed_over, trial, rows))
            times.append(time.perf_counter() - start)
        seconds = min(times)
        if seconds > LONG_ENOUGH or busy >= clients:
            return float(steps.sum()) / seconds
        busy *= 4


def _stand_in(x: Any) -> Any:
    """Return zeros, or keys of seed 0, in the shape of a tracer; return a concrete array as it is."""
    if not isinstance(x, jax.core.Tracer):
        return x
    if is_key(x):
        return jnp.broadcast_to(jax.random.key(0, impl=jax.random.key_impl(x)), x.shape)
    return jnp.asarray(np.zeros(x.shape, x.dtype))
