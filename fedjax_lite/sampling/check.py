"""Check the cohort that a sampler returns, before a run begins."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, Key
from fedjax_lite.sampling.participation import Remembering, Sampler


def check_sampler(sampler: Sampler, key: Key, sizes: Any) -> None:
    """Refuse a sampler that returns no cohort; a user's sampler is called for the cohort of round 0.

    Args:
        key: the run's root key.
        sizes: int32 `[population]`.

    Raises:
        TypeError: if the sampler returns no `fl.Client`.
        ValueError: for a weight that is negative or not finite, which would silently leave the client out, and for a client in two slots.
    """
    if isinstance(sampler, Remembering):
        if sampler.inner is not None:
            check_sampler(sampler.inner, key, sizes)
        return  # which checks itself
    first, sizes = jax.random.fold_in(key, 0), jnp.asarray(sizes)
    drawn = jax.eval_shape(sampler, first, sizes, jnp.int32(0))
    if not isinstance(drawn, Client):
        raise TypeError(
            f"sampler must return a cohort, as fl.sampling.cohort(key, sizes, ids) makes one of ids, got a {type(drawn).__name__}"
        )
    if getattr(sampler, "ours", False):
        return
    drawn = jax.device_get(sampler(first, sizes, jnp.int32(0))._replace(key=None))
    for id, weight in zip(drawn.id, drawn.weight, strict=True):
        if not 0 <= weight < math.inf:
            raise ValueError(f"sampler: client {id} has the weight {weight}: it must be finite and not negative, 0 for an empty slot")
    ids, times = np.unique(drawn.id[drawn.weight > 0], return_counts=True)
    if (times > 1).any():
        raise ValueError(f"sampler: client {ids[times.argmax()]} is in {times.max()} slots of a round: name each client once")
