"""Measure what one call of a rule costs on this machine: time, and memory by the compiler's account."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lite import sampling
from fedjax_lite.base import Aggregator, Tree


class Cost(NamedTuple):
    """The cost of one aggregation."""

    seconds: float  # the fastest of several calls: what else the machine does only makes calls slower
    bytes: int | None  # of temporary arrays and the result, by the compiler's account; None where it gives none


def cost(rule: Aggregator, message: Tree, clients: int, seconds: float = 0.2) -> Cost:
    """Compile the aggregation of `clients` messages like `message`, and time calls for some seconds; raises the rule's errors.

    >>> import fedjax_lite as fl
    >>> found = cost(fl.aggregators.median(), jnp.zeros(1000), clients=10, seconds=0.01)
    >>> 0 < found.seconds < 1, found.bytes >= 4000
    (True, True)
    """
    # Random, since sorting and selecting may be faster among equal numbers.
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(message))))
    stack = jax.tree.map(lambda x: jax.random.normal(next(keys), (clients, *jnp.shape(x)), jnp.result_type(x)), message)
    cohort = sampling.cohort(jax.random.key(0), jnp.full(clients, 10, jnp.int32), jnp.arange(clients))
    state, key = rule.init(jax.tree.map(jnp.zeros_like, message)), jax.random.key(1)

    def once(stack, cohort, state, key):
        return rule.finish(rule.collect(stack, cohort, state), state, key)[0]

    program = jax.jit(once).lower(stack, cohort, state, key).compile()
    jax.block_until_ready(program(stack, cohort, state, key))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        jax.block_until_ready(program(stack, cohort, state, key))
        times.append(time.perf_counter() - start)
    of = program.memory_analysis()
    return Cost(min(times), None if of is None else of.temp_size_in_bytes + of.output_size_in_bytes)
