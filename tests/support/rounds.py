"""Rounds whose cohorts are arguments: one compiled program for all runs of an algorithm with as many slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lite as fl

NOBODY = 99  # an id beyond the population: an empty slot


@functools.cache
def _compiled(init, round):
    def step(state, data, ids, steps):
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, ids)
        return round(state, data, cohort if steps is None else cohort._replace(steps=steps))

    return jax.jit(init), jax.jit(step)


def compiled(algorithm):
    """Its `init`, and its round as a function of the state, the data, the cohort's ids and, if told, the most steps of each."""
    return _compiled(algorithm.init, algorithm.round)


def advanced(algorithm, data, state, cohorts, steps=None):
    """The state after a round with each of the cohorts, and its metrics `[rounds]`."""
    told, step = [], compiled(algorithm)[1]
    for ids in cohorts:
        state, metrics = step(state, data, np.asarray(ids, np.int32), steps if steps is None else np.asarray(steps, np.int32))
        told.append(metrics)
    return state, {name: np.array([metrics[name] for metrics in told]) for name in told[0]}


def trained(algorithm, data, params, cohorts, key):
    """`advanced` from the start; the key is an int."""
    return advanced(algorithm, data, compiled(algorithm)[0](params, jax.random.key(key)), cohorts)


def filled(ids, slots):
    """The ids of a cohort with empty slots after them."""
    return (*ids, *[NOBODY] * (slots - len(ids)))


@functools.cache
def taught(how, apply):
    """`fl.distill.teach`, compiled: a function of the student before, the examples, their soft labels and the key."""
    return jax.jit(lambda start, examples, target, key: fl.distill.teach(how, apply, start, examples, target.astype(jnp.float32), key)[0])


def batches_of(data, batches):
    """A client's key and the batch of its step, for an oracle: a function of the root key, an int, the round, the client and the step."""

    @jax.jit
    def take(key, round, id, step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(key), round), id)
        client = fl.Client(jnp.int32(id), key, data.size[id], 0, 1.0, data.start[id])
        return key, batches.take(data, client, step, round)

    return take


def spoilt(engine):
    """The engine, whose empty slots hold NaN, all bits and the largest number."""

    def poison(messages, cohort):
        def leaf(x):
            worst = jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else True if x.dtype == bool else jnp.iinfo(x.dtype).max
            return jnp.where((cohort.weight > 0).reshape(-1, *[1] * (x.ndim - 1)), x, jnp.asarray(worst, x.dtype))

        return jax.tree.map(leaf, messages)

    def run(build, *rest):
        def wrapped(*common):
            local = build(*common)
            return local._replace(collect=lambda messages, cohort: local.collect(poison(messages, cohort), cohort))

        return engine.run(wrapped, *rest)

    return engine._replace(run=run)
