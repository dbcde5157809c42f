"""Samplers by hand: what they may return."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, Key
from fedjax_lite.sampling.participation import Sampler


def check_sampler(sampler: Sampler, key: Key, sizes: Any) -> None:
    """Refuse a sampler that returns no cohort; one by hand is asked for that of round 0.

    Args:
        key: of the run.
        sizes: int32 `[population]`.

    Raises:
        TypeError: for what is no `fl.Client`.
        ValueError: for a weight that is negative or not finite, which would leave the client out without a word, and a client in two slots.
    """
    first, sizes = jax.random.fold_in(key, 0), jnp.asarray(sizes)
    found = jax.eval_shape(sampler, first, sizes, jnp.int32(0))
    if not isinstance(found, Client):
        raise TypeError(
            f"sampler must return a cohort, as fl.sampling.cohort(key, sizes, ids) makes one of ids, got a {type(found).__name__}"
        )
    if getattr(sampler, "ours", False):
        return
    found = jax.device_get(sampler(first, sizes, jnp.int32(0))._replace(key=None))
    for id, weight in zip(found.id, found.weight, strict=True):
        if not 0 <= weight < math.inf:
            raise ValueError(f"sampler: client {id} has the weight {weight}: it must be finite and not negative, 0 for an empty slot")
    ids, times = np.unique(found.id[found.weight > 0], return_counts=True)
    if (times > 1).any():
        raise ValueError(f"sampler: client {ids[times.argmax()]} is in {times.max()} slots of a round: name each client once")
