"""The private mean by compiled programs, one for each way to cut and weigh; its numbers are arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lite as fl
from fedjax_lite.aggregators import dp_mean

CLIENTS = 7
SIZES = np.array([5, 20, 40, 80, 10, 40, 1])
OWN = np.array([0.5, -1.0, 7.0, np.nan, 1.0, 0.0, 0.25])
WAYS = {
    "uniform": dict(),
    "by leaf": dict(per_leaf=True),
    "examples": dict(weights="examples", cap=40),
    "own": dict(weights=lambda client: jnp.asarray(OWN, jnp.float32)[client.id]),
}


def stack(seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return {
        "w": np.asarray(scale * rng.normal(size=(CLIENTS, 3, 2)), np.float32),
        "b": np.asarray(scale * rng.normal(size=CLIENTS), np.float32),
    }


def round_of(aggregator, messages, weight, key, state=None):
    """Mean, state and metrics of one round; to be compiled."""
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), jnp.arange(CLIENTS), jnp.asarray(weight))
    state = aggregator.init(jax.tree.map(lambda x: x[0], messages)) if state is None else state
    return aggregator.finish(aggregator.collect(messages, cohort, state), state, jax.random.key(key))


@functools.cache
def program(way):
    return jax.jit(
        lambda messages, weight, key, clip, z, divisor: round_of(dp_mean(clip, z, divisor, **WAYS[way]), messages, weight, key)[::2]
    )


def released(messages, clip, z, divisor, weight=None, key=1, way="uniform"):
    """The mean as one vector, and the metrics."""
    weight = np.ones(CLIENTS) if weight is None else np.asarray(weight, float)
    mean, metrics = program(way)(messages, weight.astype(np.float32), key, clip, z, divisor)
    return flat(mean), metrics


def rows(messages):
    return np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(messages)], axis=1)


def flat(message):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(message)])
