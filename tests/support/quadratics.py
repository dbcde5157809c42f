"""Quadratic clients whose rounds are known to ten digits: three that all take part, and five of unequal sizes of which some do.

f_k(x) = 1/2 sum_j A_kj (x_j - c_kj)^2, full gradients, eta = 0.1. The numbers were computed in float64, apart from this package.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rounds import NOBODY, filled

import fedjax_lite as fl


class Problem(NamedTuple):
    """Clients, and who takes part with how many steps in each round."""

    a: np.ndarray
    c: np.ndarray
    sizes: tuple[int, ...]
    cohorts: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...] = ()  # K_k where it is not 5
    start: tuple[float, float] = (0.0, 0.0)

    @property
    def population(self):
        return len(self.sizes)

    def data(self):
        each = zip(self.a, self.c, self.sizes, strict=True)
        return fl.FederatedData.from_clients([{"a": np.tile(a, (n, 1)), "c": np.tile(c, (n, 1))} for a, c, n in each])


A4 = Problem(
    np.array([[1, 2], [3, 1], [0.5, 4]]), np.array([[1, 0], [-1, 2], [0, -1.0]]), (1, 1, 1), ((0, 1, 2),) * 3
)  # fmt: skip
A5 = Problem(
    np.array([[1, 2], [3, 1], [0.5, 4], [2, 0.5], [1.5, 1.5]]), np.array([[1, 0], [-1, 2], [0, -1], [2, 1], [-0.5, 0.5]]),
    (10, 20, 30, 40, 100), ((0, 3), (1, 2, 4), (0, 1), (3, 4)),
)  # fmt: skip
A4_RAGGED, A5_RAGGED = A4._replace(steps=(2, 5, 10)), A5._replace(steps=(2, 5, 10, 3, 4))


def loss_fn(params, batch, key):
    """1/2 sum_j a_j (x_j - c_j)^2 of each example."""
    return 0.5 * jnp.sum(batch["a"] * (params[None] - batch["c"]) ** 2, axis=-1)


def batches(problem, **more):
    """All examples in every step; as many steps as the slowest client takes."""
    return fl.Batches(None, steps=max(problem.steps, default=5), shuffle=False, **more)


def trajectory(algorithm, problem, rounds=None):
    """The states after each round, stacked, and the global models; the cohorts again and again where there are more rounds."""
    slots = max(map(len, problem.cohorts))
    ids = np.array([filled(cohort, slots) for cohort in problem.cohorts], np.int32)
    ids = np.tile(ids, (-(-(rounds or len(ids)) // len(ids)), 1))[: rounds or len(ids)]
    limits = np.array([*(problem.steps or [5] * problem.population), 0], np.int32)
    steps = limits[np.where(ids == NOBODY, problem.population, ids)]

    def run(data, ids, steps):
        def one(state, cohort):
            ids, steps = cohort
            drawn = fl.sampling.cohort(fl.round_key(state), data.size, ids)._replace(steps=steps)
            state, metrics = algorithm.round(state, data, drawn)
            return state, (state, algorithm.params(state), metrics)

        first = algorithm.init(jnp.array(problem.start), jax.random.key(0))
        return jax.lax.scan(one, first, (ids, steps))[1]

    return jax.jit(run)(problem.data(), ids, steps)
