"""Rules of one stacked leaf at a time, for the checkers to try."""

import jax
import jax.numpy as jnp

from fedjax_lite import aggregators


def per_leaf(fn):
    """A rule without state from a function of one stacked leaf and the cohort."""
    return aggregators.from_stack(lambda messages, cohort: jax.tree.map(lambda x: fn(x, cohort), messages))


def column(mask, x):
    return mask.reshape((-1,) + (1,) * (x.ndim - 1))


def present(x, cohort):
    """A leaf with zeros in the empty slots, and how many slots are not."""
    mask = cohort.weight > 0
    return jnp.where(column(mask, x), x, 0), jnp.maximum(jnp.sum(mask), 1)


def mean_in_half(x, cohort):
    """Added up in the dtype it has, one after another."""
    x, count = present(x, cohort)
    return jax.lax.fori_loop(0, len(x), lambda i, s: s + x[i], jnp.zeros_like(x[0])) / count.astype(x.dtype)
