"""What a client counts for."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from fedjax_lite.base import Client, Number

Weights = str | Any | Callable[[Client], Any]


def weight_of(rule: str, weights: Weights, cap: Number | None = None) -> Callable[[Client], Any]:
    """A function of one `Client` to its weight, which is `client.weight` (the sampler's own, 0 for an empty slot) times

    the number of examples ("examples", at most `cap`), 1 ("uniform"), an array's `[population]` entry at the client's id, or
    what a function of the client gives. A client without an entry in the array weighs NaN, so that it shows.

    Raises:
        ValueError: for unknown weights, an array of another shape, a cap that is not positive or without "examples".
    """
    if cap is not None and not (isinstance(weights, str) and weights == "examples"):
        raise ValueError(f'{rule}: cap={cap} bounds the number of examples, so it needs weights="examples", got {weights!r}')
    if isinstance(cap, int | float) and cap <= 0:
        raise ValueError(f"{rule}: cap must be positive, got {cap}")
    if isinstance(weights, str):
        if weights not in ("examples", "uniform"):
            raise ValueError(f'{rule}: weights must be "examples", "uniform", an array or a function, got {weights!r}')
    elif not callable(weights):
        weights = jnp.asarray(weights)
        if weights.ndim != 1:
            raise ValueError(f"{rule}: an array of weights must have the shape [population], got {list(weights.shape)}")

    def of(client: Client) -> Any:
        if callable(weights):
            return client.weight * weights(client)
        if not isinstance(weights, str):
            return client.weight * weights.at[client.id].get(mode="fill", fill_value=jnp.nan)
        if weights == "uniform":
            return client.weight
        return client.weight * (client.size if cap is None else jnp.minimum(client.size, cap))

    return of
