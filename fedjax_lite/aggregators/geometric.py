"""The geometric median, by smoothed Weiszfeld steps."""

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators.robust_rule import Needs, from_rule
from fedjax_lite.aggregators.sums import difference, mix, squared_norms
from fedjax_lite.aggregators.weights import Weights, weighs, weight_of
from fedjax_lite.base import Aggregator, Number
from fedjax_lite.refuse import positive, whole


def geometric_median(
    iterations: int = 8,
    smoothing: Number = 1e-6,
    weights: Weights = "examples",
    non_finite: str = "drop",
) -> Aggregator:
    """The point with the least weighted sum of distances to the messages (robust federated averaging, RFA).

    From the weighted mean z = sum_i a_i V_i / sum_i a_i, T times: b_i = a_i / max(nu, ||z - V_i||), z = sum_i b_i V_i / sum_i b_i.
    Withstands Byzantine clients of less than half of the total weight once it has converged: few steps come as far as messages
    that lie some spreads away. A step takes off the pull of far ones by a factor of f / (n - f) only, f of n being the weight that is
    far: of 5 of 11 at a distance of 1e12 some 150 steps are left within a few spreads, of 1 of 10 a dozen. O(T n d).

    Args:
        iterations: T, at least 1. The paper finds 3 enough; a point on which many messages lie wants more.
        smoothing: nu > 0, in the units of a message: distances below it count as nu.
        weights: a_i: "examples", "uniform", an array `[population]` or a function of the `Client`; times the sampler's weight.
        non_finite: what to do with messages that are not finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for iterations or smoothing that are not positive, unknown weights or policy.

    Source: Pillutla et al. 2022, "Robust aggregation for federated learning", algorithm 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([0.0, 1.0, 9.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = geometric_median(iterations=30)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> round(float(compiled(stack)), 3)
    1.0
    """
    whole("geometric_median", "iterations", iterations, least=1)
    positive("geometric_median", "smoothing", smoothing)
    weigh = jax.vmap(weight_of("geometric_median", weights))

    def rule(messages, cohort, n, f):
        del n, f
        present = cohort.weight > 0
        given = jnp.where(present, weigh(cohort), 0)

        def mean(b):
            total = jnp.sum(b)
            return mix(b / jnp.where(total > 0, total, 1), messages, present)

        def step(z, _):
            # The square root has no slope at 0, where the distance counts as nu anyway.
            squares = squared_norms(difference(messages, z), present)
            distances = jnp.sqrt(jnp.maximum(squares, jnp.asarray(smoothing, squares.dtype) ** 2))
            return mean(given / distances), None

        return jax.lax.scan(step, mean(given), length=int(iterations))[0]

    return from_rule("geometric_median", rule, 0, Needs(2, 1), non_finite)._replace(weighs=weighs(weights))
