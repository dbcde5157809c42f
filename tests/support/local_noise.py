"""The two kinds of local noise, what one client sends with either, and what many do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_lite.uplink.local_dp import local_gaussian, local_laplace

DRAWS = 20_000
C, Z = 0.5, 1.5
MAKE = {"gaussian": local_gaussian, "laplace": local_laplace}
NORM = {"gaussian": np.linalg.norm, "laplace": lambda x: np.abs(x).sum()}
SCIPY = {"gaussian": scipy.stats.norm, "laplace": scipy.stats.laplace}
ZEROS = {"b": np.zeros(3, np.float32), "w": np.zeros((2, 2), np.float32)}
both = pytest.mark.parametrize("kind", MAKE)


def update(transform, message, key=0, **extra):
    """What one client sends."""
    message = jax.tree.map(jnp.asarray, message)
    return transform.update(message, transform.init(message), None, key=jax.random.key(key), weight=1.0, **extra)[0]


@functools.cache
def program(kind):
    """What one client sends: a function of its message, the clip, the multiplier and the key; compiled once for each shape."""
    return jax.jit(lambda message, clip, z, key: update(MAKE[kind](clip=clip, noise_multiplier=z), message, key, round=0))


def sent(kind, message, clip=C, z=Z, key=0):
    return program(kind)(message, np.float32(clip), np.float32(z), key)


@functools.cache
def _many(kind):
    transform, zeros = MAKE[kind](clip=C, noise_multiplier=Z), jax.tree.map(jnp.asarray, ZEROS)
    return jax.jit(jax.vmap(lambda key: transform.update(zeros, transform.init(zeros), key=key, round=0)[0]))


def drawn(kind, keys):
    """Messages of as many clients, each flat: float64 `[clients, coordinates]`."""
    return np.concatenate([np.asarray(x, np.float64).reshape(len(keys), -1) for x in jax.tree.leaves(_many(kind)(keys))], axis=1)


@functools.cache
def some(kind):
    """Messages of many clients of one round."""
    return drawn(kind, jax.random.split(jax.random.key(5), DRAWS))


def flat(message):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(message)])


def variance(kind, z=Z):
    """Of a coordinate's noise."""
    return (z * C) ** 2 * (2 if kind == "laplace" else 1)
