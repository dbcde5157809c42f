"""Means: plain, or weighted by examples, by examples up to a cap, or by the user's own weights; and the sum by the sampler's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators.lift import from_sum
from fedjax_lite.aggregators.non_finite import check_policy
from fedjax_lite.aggregators.weights import Weights, weighs, weight_of
from fedjax_lite.base import Aggregator, Client, Number
from fedjax_lite.tree import wide


def mean(non_finite: str = "drop") -> Aggregator:
    """The plain average of the clients present, each counting the same.

    (1/M) sum_k m_k over the M slots of non-zero weight; 0 if there are none. One Byzantine client moves it at will.

    Args:
        non_finite: what to do with a message whose squared norm is not finite: "drop" (its slot is empty), "zero" (it counts,
            with a message of zeros) or "propagate". The metric "non_finite" counts them.

    Raises:
        ValueError: for an unknown policy.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 4.0]), fl.sampling.cohort(jax.random.key(0), jnp.array([10, 30]), jnp.arange(2))
    >>> aggregator = mean()
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    2.5
    """
    check_policy("mean", non_finite)
    return _mean(lambda client: jnp.ones_like(client.weight), non_finite)


def weighted_mean(weights: Weights = "examples", cap: Number | None = None, non_finite: str = "drop") -> Aggregator:
    """The average weighted by how many examples each client holds, or by any weights.

    sum_k w_k m_k / sum_k w_k, with w_k the weight below times the sampler's own (`client.weight`); 0 if all w_k are 0.

    Args:
        weights: "examples" (n_k), "uniform" (1), an array `[population]` of one weight a client id, or a function of the
            `Client` (scalars) to its weight. A negative weight from a tracer or a function gives NaN.
        cap: if given, w_k = min(n_k, cap): no client counts for more than `cap` examples. Goes with "examples" only.
        non_finite: as for `mean`.

    Raises:
        ValueError: for unknown weights, an array of another shape or with negative numbers, a cap without "examples". An array shorter
            than the population, whose size is not known here, is not refused: a client without an entry gives NaN.

    Over a part of the population this ratio is a biased estimate of the mean over all: both sums depend on who was drawn.

    Source: McMahan et al. 2017, algorithm 1 (weights n_k / n over the clients of the round).

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 4.0]), fl.sampling.cohort(jax.random.key(0), jnp.array([10, 30]), jnp.arange(2))
    >>> aggregator = weighted_mean()
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    3.25
    """
    check_policy("weighted_mean", non_finite)
    return _mean(weight_of("weighted_mean", weights, cap), non_finite)._replace(weighs=weighs(weights))


def weighted_sum(non_finite: str = "drop") -> Aggregator:
    """The sum of the messages by the sampler's weights, not divided by anything.

    sum_k w_k m_k with w_k = `client.weight`. For samplers whose weights make this sum an unbiased estimate of a mean over the population,
    as `fl.sampling.importance` does; a mean would divide by the sum of the weights of those who came, and be biased.

    Args:
        non_finite: as for `mean`; the message that is dropped is missing in the sum.

    Raises:
        ValueError: for an unknown policy.

    >>> import fedjax_lite as fl
    >>> cohort = fl.sampling.cohort(jax.random.key(0), jnp.array([10, 30]), jnp.arange(2), jnp.array([0.5, 2.0]))
    >>> aggregator = weighted_sum()
    >>> float(aggregator.finish(aggregator.collect(jnp.array([1.0, 4.0]), cohort, ()), (), None)[0])
    8.5

    Source: Horvitz and Thompson 1952.
    """
    check_policy("weighted_sum", non_finite)

    def each(message, client):
        return jax.tree.map(lambda x: client.weight.astype(wide(x).dtype) * wide(x), message)

    return from_sum(each, lambda total: total, non_finite)._replace(weighs=True)


def _mean(weigh: Callable[[Client], Any], non_finite: str) -> Aggregator:
    """Make the aggregator sum_k w_k m_k / sum_k w_k with w_k = `weigh(client)`."""

    def each(message, client):
        # Half precision and integers are summed in float32: a cohort's total weight overflows float16 and drowns in bfloat16.
        weight = weigh(client)
        return jax.tree.map(lambda x: weight.astype(wide(x).dtype) * wide(x), message), weight

    def total(sums):
        weighted, weight = sums
        return jax.tree.map(lambda x: x / jnp.where(weight > 0, weight, 1).astype(x.dtype), weighted)

    return from_sum(each, total, non_finite)
