"""CAF: messages lose weight along the direction in which they spread most."""

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators.gram import middle_of, squared_distances
from fedjax_lite.aggregators.robust_rule import Needs, from_rule
from fedjax_lite.aggregators.sums import average, gram, mix
from fedjax_lite.base import Aggregator, Number


def caf(num_byzantine: Number, non_finite: str = "drop") -> Aggregator:
    """The weighted mean whose weights leave the least spread in any direction (covariance bound agnostic filter).

    c = 1; while sum_i c_i > n-2f: mu = sum_i c_i V_i / sum_i c_i, (lambda, u) the top eigenpair of
    sum_i c_i (V_i - mu)(V_i - mu)^T / sum_i c_i; tau_i = <V_i - mu, u>^2; c_i <- c_i (1 - tau_i / max tau), the maximum over c_i > 0.
    The mu of the least lambda is returned. Needs n >= 2f+1. O(n^2 d) and at most 2f eigendecompositions of O(n^3).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        non_finite: what to do with messages that are not finite: "drop" (f is then one less), "zero" or "propagate".

    Raises:
        ValueError: for a negative or fractional f, an unknown policy; while tracing, for a cohort too small for f.

    The eigenvectors are those of the n x n Gram matrix. The weights count as constants when differentiated.

    Source: Allouah et al. 2025, "Towards trustworthy federated learning with untrusted participants", algorithm 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = caf(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> round(float(compiled(stack)), 1)
    1.5
    """

    def rule(messages, cohort, n, f):
        still = jax.lax.stop_gradient(messages)
        present = cohort.weight > 0
        # Center on the message with the nearest neighbours: beside outliers the honest messages then keep their digits.
        middle, _ = middle_of(squared_distances(still, present), present)
        products = gram(still, present, average(middle, still))

        def spread(c):
            """Return lambda, a scalar, and tau `[clients]` for the weights `c`."""
            share = c / jnp.maximum(jnp.sum(c), 1)
            center = jnp.eye(len(c), dtype=products.dtype) - share[None, :]
            inner = center @ products @ center.T  # <V_i - mu, V_j - mu>
            root = jnp.sqrt(share)
            values, vectors = jnp.linalg.eigh(root[:, None] * inner * root[None, :])
            # u = sum_j sqrt(s_j) w_j (V_j - mu) / sqrt(lambda), so <V_i - mu, u> needs no u.
            along = inner @ (root * vectors[:, -1])
            top = values[-1]
            return top, jnp.where(top > 0, (along / jnp.sqrt(jnp.where(top > 0, top, 1))) ** 2, 0)  # along**2 alone may overflow

        def step(_, state):
            c, best, least = state
            top, tau = spread(c)
            left = jnp.sum(c) > n - 2 * f
            better = left & (top < least)
            best, least = jnp.where(better, c, best), jnp.where(better, top, least)
            most = jnp.max(jnp.where(c > 0, tau, 0))
            share = 1 - tau / jnp.where(most > 0, most, 1)
            # A share within rounding of 0 belongs to a message as far out as the furthest: exactly 0.
            share = jnp.where(share > 16 * jnp.finfo(share.dtype).eps, share, 0)
            return jnp.where(left & (most > 0), c * share, c), best, least

        start = *2 * [present.astype(products.dtype)], jnp.asarray(jnp.inf, products.dtype)
        _, best, _ = jax.lax.fori_loop(0, 2 * f + 1, step, start)
        return mix(best / jnp.maximum(jnp.sum(best), 1), messages, present)

    return from_rule("caf", rule, num_byzantine, Needs(2, 1), non_finite)
