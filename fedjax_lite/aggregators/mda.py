"""Minimum diameter averaging: the mean of the subset of messages that lie closest together."""

from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.aggregators.gram import squared_distances
from fedjax_lite.aggregators.robust_rule import Needs, from_rule
from fedjax_lite.aggregators.sums import average
from fedjax_lite.base import Aggregator

MOST = 100_000  # subsets that may be compared
CHUNK = 256  # subsets compared at a time


def mda(num_byzantine: int, non_finite: str = "drop") -> Aggregator:
    """The mean of the n-f messages with the least diameter (minimum diameter averaging).

    (1/(n-f)) sum over i in S of V_i, S the set of n-f clients with the least max over i, j in S of ||V_i - V_j||; of equal
    diameters the first set in the order of its slots. Needs n >= 2f+1. O(n^2 d) and n!/(f!(n-f)!) sets of O(n^2): exponential in f.

    Args:
        num_byzantine: f, how many Byzantine clients to withstand; it decides how many sets there are, so no tracer.
        non_finite: what to do with messages that are not finite: "drop" (f is then one less), "zero" or "propagate".

    Raises:
        TypeError: for an f that is a tracer.
        ValueError: for a negative or fractional f, an unknown policy; while tracing, for a cohort too small for f and for more
            than 100,000 sets.

    Source: El Mhamdi et al. 2020, "Genuinely distributed Byzantine machine learning", section 3; Rousseeuw 1985.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 9.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = mda(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> float(compiled(stack))
    1.5
    """
    if isinstance(num_byzantine, jax.Array):
        raise TypeError("mda: num_byzantine decides how many sets there are: give a Python number, one program for each")

    def rule(messages, cohort, n, f):
        slots, present = cohort.weight.shape[0], cohort.weight > 0
        sets = comb(slots, int(num_byzantine))
        if sets > MOST:
            raise ValueError(
                f"mda: num_byzantine={num_byzantine} of {slots} slots make {sets} sets of clients, more than {MOST}: lower one of "
                "them, or use caf or nnm, which do not search"
            )
        kept = np.zeros((-(-sets // CHUNK) * CHUNK, slots), bool)
        for row, members in enumerate(combinations(range(slots), slots - int(num_byzantine))):
            kept[row, list(members)] = True
        distances = squared_distances(messages, present)
        # Sets that differ in empty slots only hold the same clients: the set with the first empty slots counts.
        filled = ~present & (jnp.cumsum(~present) <= slots - int(num_byzantine) - (n - f))

        def diameter(kept):
            """Return the largest squared distance within each set, `[CHUNK]`; infinity for a repeated or empty set."""
            members = kept & present[None, :]
            pairs = members[:, :, None] & members[:, None, :]
            widest = jnp.max(jnp.where(pairs, distances[None], 0), axis=(1, 2))
            counts = jnp.all((kept & ~present[None, :]) == filled[None, :], axis=1) & jnp.any(kept, axis=1)
            return jnp.where(counts, widest, jnp.inf)

        diameters = jax.lax.map(diameter, jnp.asarray(kept).reshape(-1, CHUNK, slots)).reshape(-1)
        chosen = jnp.asarray(kept)[jnp.argmin(diameters)] & present
        return average(chosen, messages)

    return from_rule("mda", rule, num_byzantine, Needs(2, 1), non_finite)
