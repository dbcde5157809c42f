"""Votes on signs: the majority of each coordinate, and RLR, which turns the step round where too few agree."""

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators.lift import from_sum
from fedjax_lite.aggregators.non_finite import check_policy
from fedjax_lite.aggregators.weights import Weights, weighs, weight_of
from fedjax_lite.base import Aggregator, Number
from fedjax_lite.refuse import positive
from fedjax_lite.tree import wide


def sign_majority(learning_rate: Number = 1.0, non_finite: str = "drop") -> Aggregator:
    """Each coordinate moves by the learning rate into the direction of most messages (signSGD with majority vote).

    eta sign(sum_i sign(V_i)); 0 where the votes are even. Needs f < n/2. O(n d), adds.

    Args:
        learning_rate: eta > 0, the length of a step in every coordinate: the messages' own lengths are lost.
        non_finite: what to do with messages that are not finite: "drop", "zero" (no vote) or "propagate".

    Raises:
        ValueError: for a rate that is not positive, an unknown policy.

    Source: Bernstein et al. 2018, "signSGD", algorithm 1.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, -8.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = sign_majority(learning_rate=0.5)
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    0.5
    """
    positive("sign_majority", "learning_rate", learning_rate)

    def total(votes):
        return jax.tree.map(lambda x: jnp.asarray(learning_rate, x.dtype) * jnp.sign(x), votes)

    check_policy("sign_majority", non_finite)
    return from_sum(lambda message, client: jax.tree.map(lambda x: jnp.sign(wide(x)), message), total, non_finite)


def rlr(
    threshold: Number,
    learning_rate: Number = 1.0,
    weights: Weights = "examples",
    non_finite: str = "drop",
) -> Aggregator:
    """The weighted mean, with the step turned round where too few clients agree on its sign (robust learning rate).

    Coordinate by coordinate eta_j sum_i w_i V_ij / sum_i w_i, with eta_j = eta where |sum_i sign(V_ij)| >= theta and -eta elsewhere.
    A defence against backdoors; the paper wants theta > 2f. O(n d), adds.

    Args:
        threshold: theta >= 0, in votes.
        learning_rate: eta > 0.
        weights: w_i: "examples", "uniform", an array `[population]` or a function of the `Client`; times the sampler's weight.
        non_finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for a negative threshold, a rate that is not positive, unknown weights or policy.

    Source: Ozdayi, Kantarcioglu and Gel 2021, "Defending against backdoors in federated learning with robust learning rate", section 4.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, -1.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = rlr(threshold=2)
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    -30.0
    """
    positive("rlr", "learning_rate", learning_rate)
    positive("rlr", "threshold", threshold, or_zero=True)
    weigh = weight_of("rlr", weights)

    def each(message, client):
        weight, message = weigh(client), jax.tree.map(wide, message)
        weighted = jax.tree.map(lambda x: weight.astype(x.dtype) * x, message)
        return jax.tree.map(jnp.sign, message), weighted, weight

    def total(sums):
        votes, added, weight = sums

        def leaf(votes, x):
            rate = jnp.where(jnp.abs(votes) >= threshold, learning_rate, -jnp.asarray(learning_rate)).astype(x.dtype)
            return rate * x / jnp.where(weight > 0, weight, 1).astype(x.dtype)

        return jax.tree.map(leaf, votes, added)

    check_policy("rlr", non_finite)
    return from_sum(each, total, non_finite)._replace(weighs=weighs(weights))
