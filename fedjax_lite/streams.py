"""Streams of random keys: what is drawn for samplers, for the server and for each client never meets."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

__all__ = ["HIGH_STREAM", "aggregate_key", "client_keys", "sample_key"]

Key = Any  # a jax random key

# Above rounds, client ids and local steps; in jax split(key)[i] is fold_in(key, i), so low numbers may be taken by any function.
HIGH_STREAM = 2**31
_SAMPLE, _AGGREGATE = np.uint32(2**32 - 1), np.uint32(2**32 - 2)


def sample_key(key: Key) -> Key:
    """Return the stream of a round's key that samplers draw from."""
    return jax.random.fold_in(key, _SAMPLE)


def aggregate_key(key: Key) -> Key:
    """Return the stream of a round's key that aggregator and server draw from."""
    return jax.random.fold_in(key, _AGGREGATE)


def client_keys(key: Key, ids: Int[Array, " clients"]) -> Key:
    """Return a key for each client, a function of the round's key and the client's id alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
