"""Rounds whose cohorts are arguments: one compiled program for all runs of an algorithm with as many slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lite as fl

NOBODY = 99  # an id beyond the population: an empty slot


@functools.cache
def _compiled(init, round):
    def step(state, data, ids):
        return round(state, data, fl.sampling.cohort(fl.round_key(state), data.size, ids))

    return jax.jit(init), jax.jit(step)


def advanced(algorithm, data, state, cohorts):
    """The state after a round with each of the cohorts, and its metrics `[rounds]`."""
    told, step = [], _compiled(algorithm.init, algorithm.round)[1]
    for ids in cohorts:
        state, metrics = step(state, data, np.asarray(ids, np.int32))
        told.append(metrics)
    return state, {name: np.array([metrics[name] for metrics in told]) for name in told[0]}


def trained(algorithm, data, params, cohorts, key):
    """`advanced` from the start; the key is an int."""
    return advanced(algorithm, data, _compiled(algorithm.init, algorithm.round)[0](params, jax.random.key(key)), cohorts)


def filled(ids, slots):
    """The ids of a cohort with empty slots after them."""
    return (*ids, *[NOBODY] * (slots - len(ids)))


@functools.cache
def taught(how, apply):
    """`fl.distill.taught`, compiled: a function of the student before, the examples, their soft labels and the key."""
    return jax.jit(lambda start, examples, target, key: fl.distill.taught(how, apply, start, examples, target.astype(jnp.float32), key)[0])
