"""Weights of clients in a weighted aggregator."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedjax_lite.base import Client, Number
from fedjax_lite.refuse import positive

Weights = str | Any | Callable[[Client], Any]  # "examples", "uniform", an array [population], or client -> weight


def weighs(weights: Weights) -> bool:
    """Return whether under these weights clients may count differently.

    >>> weighs("examples"), weighs("uniform")
    (True, False)
    """
    return not isinstance(weights, str) or weights != "uniform"


def weight_of(rule: str, weights: Weights, cap: Number | None = None) -> Callable[[Client], Any]:
    """Make a function of one `Client` to its weight, a scalar.

    The weight is `client.weight` (the sampler's own, 0 for an empty slot) times a factor. The factor is the number of examples
    ("examples", at most `cap`), 1 ("uniform"), an array's `[population]` entry at the client's id, or a function's value for the client.
    Without an entry, or with a negative factor from a tracer or a function, the client weighs NaN, so that the mistake shows. (The
    size of the population is not known here.)

    Raises:
        ValueError: for unknown weights, an array of another shape or with numbers that are negative or not finite, a cap that is not
            positive or without "examples".
    """
    if cap is not None and not (isinstance(weights, str) and weights == "examples"):
        raise ValueError(f'{rule}: cap={cap} bounds the number of examples, so it needs weights="examples", got {weights!r}')
    if cap is not None:
        positive(rule, "cap", cap)
    if isinstance(weights, str):
        if weights not in ("examples", "uniform"):
            raise ValueError(f'{rule}: weights must be "examples", "uniform", an array or a function, got {weights!r}')
    elif not callable(weights):
        weights = _table(rule, weights)

    def weigh(client: Client) -> Any:
        if callable(weights):
            return client.weight * _or_nan(jnp.asarray(weights(client)))
        if not isinstance(weights, str):
            return client.weight * _or_nan(weights.at[client.id].get(mode="fill", fill_value=jnp.nan))
        if weights == "uniform":
            return client.weight
        return client.weight * (client.size if cap is None else jnp.minimum(client.size, cap))

    return weigh


def _table(rule: str, weights: Any) -> Array:
    """Return `weights` as a float array `[population]`; refuse other shapes, and numbers that are negative or not finite."""
    if not isinstance(weights, jax.Array):
        weights = np.asarray(weights)
        if weights.dtype.kind not in "fiub":
            raise ValueError(f"{rule}: an array of weights must hold numbers, one a client of the population, got {weights!r}")
    if weights.ndim != 1:
        raise ValueError(f"{rule}: an array of weights must have the shape [population], got {list(weights.shape)}")
    if not isinstance(weights, jax.core.Tracer):
        bad = np.flatnonzero(~((np.asarray(weights) >= 0) & np.isfinite(np.asarray(weights, float))))
        if bad.size:
            raise ValueError(f"{rule}: weights must be finite and not negative, got {float(weights[bad[0]])} for client {bad[0]}")
    weights = jnp.asarray(weights)
    return weights if jnp.issubdtype(weights.dtype, jnp.floating) else weights.astype(float)


def _or_nan(weight: Array) -> Array:
    """Return `weight`, or NaN for a negative weight, under which an average would point backwards."""
    return jnp.where(weight < 0, jnp.nan, weight)
