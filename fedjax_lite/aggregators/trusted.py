"""Rules that trust the message of one client of the cohort, which stands for the server."""

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.aggregators.gram import lowest
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.aggregators.robust_rule import Needs, from_rule
from fedjax_lite.aggregators.sums import average, difference, inner, mix, squared_norms
from fedjax_lite.base import Aggregator, Number
from fedjax_lite.refuse import whole


def fltrust(trusted: int, non_finite: str = "drop") -> Aggregator:
    """Messages count by their cosine with the server's own message, and are scaled to its length.

    g_0 is the trusted client's message, t_i = max(0, cos(V_i, g_0)); the aggregate is
    sum_i t_i (||g_0|| / ||V_i||) V_i / sum_i t_i over the other clients, and 0 if all t_i are 0. Withstands any number of
    Byzantine clients as far as g_0 is right. O(n d).

    Args:
        trusted: the id of the client that holds the server's root data, about 100 examples. It has to be in every cohort: see
            `fl.sampling.including`. Where its message is missing or not finite the aggregate is 0 and the metric "too_few" 1.
        non_finite: what to do with messages that are not finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for an id that is negative or no whole number, an unknown policy.

    Source: Cao et al. 2021, "FLTrust", algorithm 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 9.0, -50.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = fltrust(trusted=0)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    1.0
    """
    whole("fltrust", "trusted", trusted)

    def rule(messages, cohort, n, f):
        del n, f
        present, root = cohort.weight > 0, is_trusted(cohort, trusted)
        server = average(root, messages)
        along = inner(messages, server, present)
        squares = squared_norms(messages, present)
        # A length has no slope at 0, so lengths stay above 0; t of a message of zeros is 0.
        lengths = jnp.sqrt(jnp.maximum(squares, jnp.finfo(squares.dtype).tiny))
        length = jnp.sum(jnp.where(root, lengths, 0))
        others = present & ~root & (squares > 0) & (length > jnp.sqrt(jnp.finfo(squares.dtype).tiny))
        trust = jnp.where(others, jnp.maximum(along / lengths / jnp.maximum(length, jnp.finfo(squares.dtype).tiny), 0), 0)
        total = jnp.sum(trust)
        return mix(trust * length / lengths / jnp.where(total > 0, total, 1), messages, present)

    return _with_trusted("fltrust", rule, 0, Needs(0, 1), trusted, non_finite)


def monna(num_byzantine: Number, trusted: int, non_finite: str = "drop") -> Aggregator:
    """The mean of the messages nearest to the server's own.

    The mean of the n-f messages V_i with the least ||V_i - g_0||, g_0 the trusted client's and itself among them; of equally
    distant ones those in the lowest slots. Needs n >= 2f+1. O(n d).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        trusted: the id of a client that is honest and in every cohort: see `fl.sampling.including`.
        non_finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: for a negative or fractional f or id, an unknown policy; while tracing, for a cohort too small for f.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 9.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = fl.aggregators.monna(num_byzantine=1, trusted=0)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> round(float(compiled(stack)), 3)
    1.5

    Source: Farhadkhani et al. 2023, "Robust collaborative learning with linear gradient overhead", section 3.2.
    """
    whole("monna", "trusted", trusted)

    def rule(messages, cohort, n, f):
        present, root = cohort.weight > 0, is_trusted(cohort, trusted)
        still = jax.lax.stop_gradient(messages)
        server = average(root, still)
        distances = squared_norms(difference(still, server), present)
        near = lowest(jnp.where(present, distances, jnp.inf), n - f)
        return average(near & present, messages)

    return _with_trusted("monna", rule, num_byzantine, Needs(2, 1), trusted, non_finite)


def is_trusted(cohort, trusted):
    """Mark the slot of the client `trusted`, `[clients]`; all False if the client is absent."""
    return (cohort.weight > 0) & (cohort.id == trusted)


def _with_trusted(name, rule, num_byzantine, needs, trusted, non_finite) -> Aggregator:
    """Make an aggregator from `rule`; without a finite message of the client `trusted` the aggregate is 0."""
    plain = from_rule(name, rule, num_byzantine, needs, non_finite)

    def finish(part, state, key):
        messages, cohort = part
        aggregate, state, metrics = plain.finish(part, state, key)
        there = jnp.any(is_trusted(cohort, trusted) & is_finite(messages, cohort.weight > 0))
        metrics |= {"too_few": jnp.where(there, metrics["too_few"], 1.0)}
        return tree.zero_where_not(there, aggregate), state, metrics

    return plain._replace(finish=finish)
