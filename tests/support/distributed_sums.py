"""Distributed differential privacy by compiled programs: what the clients of a small cohort upload, and what a server makes of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lite as fl
from fedjax_lite.aggregators.distributed import ddgauss

CLIENTS, DIMENSION = 5, 16  # of `stack`: 9 coordinates, in two blocks of 8
EVERYONE = np.ones(CLIENTS)
ROUNDS = 1000


def stack(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "b": np.asarray(rng.normal(size=(CLIENTS, 3)) * scale, np.float32),
        "w": np.asarray(rng.normal(size=(CLIENTS, 3, 2)), np.float32),
    }


def cohort(ids, weight, key):
    key = jax.random.fold_in(jax.random.key(0), key)
    return fl.sampling.cohort(key, jnp.full(5000, 10), jnp.asarray(ids), jnp.asarray(weight))


@functools.cache
def uploads(kind):
    """Messages, weight, state, C, z, gamma, order of the slots, key -> the uploads' sum; all of it may be traced."""

    def collect(messages, weight, state, clip, z, gamma, order, key):
        aggregator = kind(clip, z, CLIENTS, DIMENSION, granularity=gamma, block=8)
        messages, weight = jax.tree.map(lambda x: x[order], (messages, weight))
        return aggregator.collect(messages, cohort(order, weight, key), state)

    return jax.jit(collect)


def collected(kind, messages, weight=EVERYONE, state=0, clip=1.0, z=0.5, gamma=0.01, order=None, key=0):
    order = np.arange(CLIENTS) if order is None else np.asarray(order)
    return uploads(kind)(messages, np.asarray(weight, np.float32), np.int32(state), clip, z, gamma, order, key)


@functools.cache
def server(bits):
    """The sum of the uploads, state, gamma -> what the server makes of it."""

    def finish(part, state, gamma):
        return ddgauss(1.0, 0.0, CLIENTS, DIMENSION, bits, granularity=gamma, block=8).finish(part, state, jax.random.key(1))

    return jax.jit(finish)


@functools.cache
def many(kind):
    """The means of a thousand rounds, each with a z and a gamma of its own; a batch of whole rounds."""

    def mean(messages, weight, state, clip, z, gamma):
        aggregator = kind(clip, z, CLIENTS, DIMENSION, granularity=gamma, block=8)
        part = aggregator.collect(messages, cohort(jnp.arange(CLIENTS), weight, state), state)
        return aggregator.finish(part, state, jax.random.key(1))[0]

    return jax.jit(jax.vmap(mean, (None, None, 0, None, 0, 0)))


def means(kind, messages, weight, clip, z, gamma, state=None):
    state = np.arange(ROUNDS) if state is None else np.full(ROUNDS, state)
    z, gamma = np.resize(z, ROUNDS), np.resize(gamma, ROUNDS)
    found = many(kind)(messages, np.asarray(weight, np.float32), state.astype(np.int32), clip, z, gamma)
    return np.concatenate([np.asarray(x, np.float64).reshape(ROUNDS, -1) for x in jax.tree.leaves(found)], axis=1)


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


def signed(numbers, bits=32):
    return [(int(x) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for x in np.asarray(numbers)]


def once(aggregator, messages, key=0):
    """The mean and the metrics of a first round; to be compiled."""
    clients = len(jax.tree.leaves(messages)[0])
    part = aggregator.collect(messages, cohort(np.arange(clients), np.ones(clients, np.float32), key), jnp.int32(0))
    mean, _, metrics = aggregator.finish(part, jnp.int32(0), jax.random.key(1))
    return mean, metrics


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
