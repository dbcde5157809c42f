"""From values of an example's positions to one value an example."""

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Mean


def of_examples(values: jax.Array, counts: jax.Array | None, mean: str) -> Any:
    """Values of all positions as one an example, `[batch]`, or as a `Mean` where they do not all count the same."""
    here = jnp.ones(values.shape, bool) if counts is None else counts
    values = jnp.where(here, values, 0).reshape(len(values), -1)
    total, number = jnp.sum(values, axis=-1), jnp.sum(here.reshape(len(values), -1), axis=-1)
    if mean == "tokens":
        return Mean(total, number.astype(values.dtype))
    each = total / jnp.maximum(number, 1).astype(values.dtype)
    return each if counts is None else Mean(each, (number > 0).astype(values.dtype))


def wide(outputs: jax.Array) -> jax.Array:
    """Cast outputs to at least float32, in which losses are computed."""
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
