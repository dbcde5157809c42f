"""Means: plain, and weighted by examples, by a cap on them, or by weights of the user's own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators.lift import from_sum
from fedjax_lite.base import Aggregator, Client, Number


def mean() -> Aggregator:
    """The plain average of the clients present, each counting the same.

    (1/M) sum_k m_k over the M slots of non-zero weight; 0 if there are none.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 4.0]), fl.sampling.cohort(jax.random.key(0), jnp.array([10, 30]), jnp.arange(2))
    >>> aggregator = mean()
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    2.5
    """
    return _mean(lambda client: jnp.ones_like(client.weight))


def weighted_mean(weights: str | Any | Callable[[Client], Any] = "examples", cap: Number | None = None) -> Aggregator:
    """The average weighted by how many examples each client holds, or by any weights.

    sum_k w_k m_k / sum_k w_k, with w_k the weight below times the sampler's own (`client.weight`); 0 if all w_k are 0.

    Args:
        weights: "examples" (n_k), "uniform" (1), an array `[population]` of one weight a client id, or a function of the
            `Client` (scalars) to its weight. Weights must not be negative.
        cap: if given, w_k = min(n_k, cap): no client counts for more than `cap` examples. Goes with "examples" only.

    Raises:
        ValueError: for unknown weights, weights of the wrong shape, a cap without "examples". An array shorter than the
            population gives NaN for the clients it lacks.

    Over a part of the population this ratio is a biased estimate of the mean over all: both sums depend on who was drawn.

    Source: McMahan et al. 2017, algorithm 1 (weights n_k / n over the clients of the round).

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 4.0]), fl.sampling.cohort(jax.random.key(0), jnp.array([10, 30]), jnp.arange(2))
    >>> aggregator = weighted_mean()
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    3.25
    """
    if cap is not None and not (isinstance(weights, str) and weights == "examples"):
        raise ValueError(f'weighted_mean: cap={cap} bounds the number of examples, so it needs weights="examples", got {weights!r}')
    if isinstance(cap, int | float) and cap <= 0:
        raise ValueError(f"weighted_mean: cap must be positive, got {cap}")
    if isinstance(weights, str):
        if weights not in ("examples", "uniform"):
            raise ValueError(f'weighted_mean: weights must be "examples", "uniform", an array or a function, got {weights!r}')
    elif not callable(weights):
        weights = jnp.asarray(weights)
        if weights.ndim != 1:
            raise ValueError(f"weighted_mean: an array of weights must have the shape [population], got {list(weights.shape)}")

    def weight_of(client):
        if callable(weights):
            return client.weight * weights(client)
        if not isinstance(weights, str):
            return client.weight * weights.at[client.id].get(mode="fill", fill_value=jnp.nan)  # an id without a weight must show
        if weights == "uniform":
            return client.weight
        return client.weight * (client.size if cap is None else jnp.minimum(client.size, cap))

    return _mean(weight_of)


def _mean(weight_of: Callable[[Client], Any]) -> Aggregator:
    def each(message, client):
        # Half precision and integers are summed in float32: a cohort's total weight overflows float16 and drowns in bfloat16.
        weight = weight_of(client)
        wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), message)
        return jax.tree.map(lambda x: weight.astype(x.dtype) * x, wide), weight

    def total(sums):
        weighted, weight = sums
        return jax.tree.map(lambda x: x / jnp.where(weight > 0, weight, 1).astype(x.dtype), weighted)

    return from_sum(each, total)
