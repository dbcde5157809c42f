"""Robust rules by coordinate order: median, weighted median, trimmed mean, mean around the median."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.aggregators.order_statistics import mean_around, mean_between, middle, statistic
from fedjax_lite.aggregators.robust_rule import Needs, from_rule
from fedjax_lite.aggregators.sums import Present, columns
from fedjax_lite.aggregators.weights import Weights, weighs, weight_of
from fedjax_lite.base import Aggregator, Number, Tree


def median(non_finite: str = "drop") -> Aggregator:
    """The median of each coordinate over the clients; of an even number, the mean of the two in the middle.

    Breaks down when half of the clients are Byzantine. Weights other than 0 do not matter. O(n d).

    Args:
        non_finite: what to do with a message whose squared norm is not finite: "drop", "zero" or "propagate" (a NaN counts as more
            than infinity).

    Raises:
        ValueError: for an unknown policy.

    Source: Yin et al. 2018, "Byzantine-robust distributed learning", definition 1.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = median()
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    2.0
    """

    def rule(messages, cohort, n, f):
        del f
        skipped = (n - 1) // 2

        def each_coordinate(x, present):
            return mean_between(x, present, *middle(x, present, n), skipped, n - 2 * skipped)

        return columns(each_coordinate, messages, cohort.weight > 0)

    return from_rule("median", rule, 0, Needs(2, 1), non_finite)


def weighted_median(weights: Weights = "examples", non_finite: str = "drop") -> Aggregator:
    """The lower weighted median of each coordinate.

    The smallest V_kj for which the weights of the values up to it are at least half of the total. Breaks down when Byzantine
    clients have half of the weight. O(n d). Whole weights that add up to less than 2^30 count exactly, others to a
    millionth of the largest or so.

    Args:
        weights: "examples", "uniform", an array `[population]` or a function of the `Client`; times the sampler's weight.
        non_finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for unknown weights or policy.

    Source: Yin et al. 2018, definition 1, with weights as in Chen et al. 2017.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.array([1, 3, 1]), jnp.arange(3))
    >>> aggregator = weighted_median()
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    90.0
    """
    weigh = jax.vmap(weight_of("weighted_median", weights))

    def rule(messages, cohort, n, f):
        del f
        given = jnp.where(cohort.weight > 0, weigh(cohort), 0)
        counted, exact = _counted(given)
        total = jnp.sum(counted)
        half = jnp.maximum((total + 1) // 2 - jnp.where(exact, 0, n), jnp.minimum(total, 1))  # each count was rounded by less than 1
        lost = jnp.any(jnp.isnan(given))

        def each_coordinate(x, present):
            value = statistic(x, counted, half)
            middle = mean_between(x, present & (counted > 0), value, value, jnp.int32(0), jnp.int32(1))
            return jnp.where(lost, jnp.nan, jnp.where(total > 0, middle, 0))

        return columns(each_coordinate, messages, cohort.weight > 0)

    return from_rule("weighted_median", rule, 0, Needs(2, 1), non_finite)._replace(weighs=weighs(weights))


def trimmed_mean(num_byzantine: Number, non_finite: str = "drop") -> Aggregator:
    """Each coordinate's mean after its f smallest and its f largest values are dropped.

    (1/(n-2f)) sum of the values of rank f .. n-f-1. Needs n >= 2f+1. O(n d).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        non_finite: what to do with messages that are not finite: "drop" (f is then one less), "zero" or "propagate".

    Raises:
        ValueError: for a negative or fractional f, an unknown policy; while tracing, for a cohort too small for f.

    Source: Yin et al. 2018, "Byzantine-robust distributed learning", definition 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0, 4.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(4, int), jnp.arange(4))
    >>> aggregator = trimmed_mean(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    3.0
    """

    def rule(messages, cohort, n, f):
        def each_coordinate(x, present):
            ones = present.astype(jnp.float32)
            return mean_between(x, present, statistic(x, ones, f + 1), statistic(x, ones, n - f), f, n - 2 * f)

        return columns(each_coordinate, messages, cohort.weight > 0)

    return from_rule("trimmed_mean", rule, num_byzantine, Needs(2, 1), non_finite)


def meamed(num_byzantine: Number, non_finite: str = "drop") -> Aggregator:
    """Each coordinate's mean of the n-f values closest to its median; of equally close values those of the lowest slots.

    Needs n >= 2f+1. O(n d).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        non_finite: "drop" (f is then one less), "zero" or "propagate".

    Raises:
        ValueError: as `trimmed_mean` does.

    Source: Xie, Koyejo and Gupta 2018, "Generalized Byzantine-tolerant SGD", definition 4.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = meamed(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    1.5
    """

    def rule(messages, cohort, n, f):
        return mean_around_median(messages, cohort.weight > 0, n - f)

    return from_rule("meamed", rule, num_byzantine, Needs(2, 1), non_finite)


def _counted(weights: Float[Array, " clients"]) -> tuple[Int[Array, " clients"], Bool[Array, ""]]:
    """Return whole numbers in proportion to `weights`, whose sums are exact; also return whether they equal `weights`."""
    dtype = jnp.promote_types(jnp.result_type(int), jnp.int32)
    room = 2.0 ** (jnp.iinfo(dtype).bits - 2)
    weights = jnp.nan_to_num(weights)
    exact = jnp.all(weights == jnp.round(weights)) & (jnp.sum(weights) < room)
    largest = jnp.max(weights, initial=0)
    most = 2.0 ** min(jnp.iinfo(dtype).bits - 2 - len(weights).bit_length(), jnp.finfo(weights.dtype).nmant - 1)
    scaled = weights / jnp.where(largest > 0, largest, 1) * most
    return jnp.round(jnp.where(exact, weights, scaled)).astype(dtype), exact


def mean_around_median(messages: Tree, present: Present, kept) -> Tree:
    """Average each coordinate's `kept` values closest to the median of the messages present."""
    n = jnp.sum(present, dtype=jnp.int32)

    def each_coordinate(x, present):
        low, high = middle(x, present, n)
        return mean_around(x, present, low + (high - low) / 2, kept)

    return columns(each_coordinate, messages, present)
