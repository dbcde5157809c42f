"""Aggregators that bound the influence of one message: norm bounding and centred clipping."""

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.aggregators.lift import from_sum
from fedjax_lite.aggregators.non_finite import check_policy, screen
from fedjax_lite.aggregators.sums import sum_rows
from fedjax_lite.base import Aggregator, Number, Tree
from fedjax_lite.refuse import positive, whole
from fedjax_lite.tree import wide


def norm_bounding(max_norm: Number, non_finite: str = "drop") -> Aggregator:
    """The mean of messages cut to a length.

    (1/n) sum_i V_i min(1, C / ||V_i||), the norm over all leaves. One client moves the aggregate by at most 2C/n. O(n d), adds.

    Args:
        max_norm: C > 0, in the units of a message.
        non_finite: what to do with messages that are not finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for a norm that is not positive, an unknown policy.

    Source: Sun et al. 2019, "Can you really backdoor federated learning?", section 3.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> aggregator = norm_bounding(max_norm=2.0)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    1.5
    """
    positive("norm_bounding", "max_norm", max_norm)

    def each(message, client):
        return shortened(jax.tree.map(wide, message), max_norm), 1.0

    def total(sums):
        added, count = sums
        return jax.tree.map(lambda x: x / jnp.maximum(count, 1).astype(x.dtype), added)

    check_policy("norm_bounding", non_finite)
    return from_sum(each, total, non_finite)


def centered_clipping(radius: Number, iterations: int = 1, non_finite: str = "drop") -> Aggregator:
    """Messages are cut to a distance from the last aggregate, which moves by their mean.

    L times: v <- v + (1/n) sum_i (V_i - v) min(1, tau / ||V_i - v||); v, at first 0, is kept between rounds. The theory asks for
    f/n < about 0.1 and messages with client momentum. O(L n d); with L = 1 it adds.

    Args:
        radius: tau > 0, in the units of a message.
        iterations: L, at least 1.
        non_finite: what to do with messages that are not finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for a radius or iterations that are not positive, an unknown policy.

    Source: Karimireddy, He and Jaggi 2021, "Learning from history for Byzantine robust optimization", algorithm 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> aggregator = centered_clipping(radius=2.0)
    >>> v, _, _ = aggregator.finish(aggregator.collect(stack, cohort, jnp.zeros(())), jnp.zeros(()), None)
    >>> v, _, _ = aggregator.finish(aggregator.collect(stack, cohort, v), v, None)
    >>> float(v)
    2.25
    """
    positive("centered_clipping", "radius", radius)
    whole("centered_clipping", "iterations", iterations, least=1)
    check_policy("centered_clipping", non_finite)

    def pull(messages, cohort, v):
        """Sum the clipped differences from `v`; also count the clients summed, and the messages that are not finite."""
        messages, cohort, dropped = screen(messages, cohort, non_finite)
        present = cohort.weight > 0

        def clipped(here, message):
            return shortened(jax.tree.map(jnp.subtract, tree.zero_where_not(here, message), v), radius)

        added = sum_rows(clipped, present, present, messages)
        return added, jnp.sum(present, dtype=jnp.float32), dropped

    def moved(v, pulled):
        """Move `v` by the mean of the clipped differences; pass on the count of messages that are not finite."""
        added, count, dropped = pulled
        v = jax.tree.map(lambda center, x: center + (x / jnp.maximum(count, 1)).astype(center.dtype), v, added)
        return v, dropped

    def finish_iterated(part, v, key):
        del key
        messages, cohort = part
        v, dropped = jax.lax.scan(lambda v, _: moved(v, pull(messages, cohort, v)), v, length=int(iterations))
        return v, v, {"non_finite": dropped[0]}

    def finish_once(part, v, key):
        del key
        v, dropped = moved(v, part)
        return v, v, {"non_finite": dropped}

    def init(message: Tree) -> Tree:
        return jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.promote_types(x.dtype, jnp.float32)), message)

    if iterations == 1:
        return Aggregator(init, pull, finish_once, additive=True)
    return Aggregator(init, lambda messages, cohort, v: (messages, cohort), finish_iterated, additive=False)


def shortened(message: Tree, most: Number) -> Tree:
    """Scale `message` down to a norm of at most `most`; return a shorter message unchanged."""
    # A norm of 0 has no slope, so at least `tiny` divides; a message of zeros stays 0.
    square = tree.squared_norm(message)
    norm = jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
    return jax.tree.map(lambda x: x * jnp.minimum(1, most / norm).astype(x.dtype), message)
