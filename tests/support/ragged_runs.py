"""Ragged clients for oracles: short last batches, an empty slot, a client that drops out, one whose message is not finite.

Softmax regression in batches of 4 in their order, two epochs. In three rounds slots hold these clients, and take at most so many steps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from oracles import softmax_regression_gradient, softmax_regression_losses
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from rounds import NOBODY, advanced, compiled

import fedjax_lite as fl

BATCH, EPOCHS, RATE = 4, 2, 0.3
LOST = 5  # whose examples are NaN
COHORTS = ((0, 2, LOST, NOBODY, 4), (1, 2, 6, 3, 4), (4, 0, NOBODY, LOST, 2))
LIMITS = (99, 5, 99, 99, 0)  # the second slot is cut short, the last drops out
gradient, losses = softmax_regression_gradient, softmax_regression_losses


def batches(**more):
    return fl.Batches(BATCH, epochs=EPOCHS, shuffle=False, **more)


def data():
    """Those of `softmax_data`, but for the lost client's."""
    made = softmax_data()
    rows = slice(int(made.start[LOST]), int(made.start[LOST]) + SIZES[LOST])
    made.examples["x"] = made.examples["x"].at[rows].set(jnp.nan)
    return made


def run(make, **more):
    """The states after each round and the metrics, of `make(loss_fn, batches=..., population=...)`."""
    algorithm = make(softmax_loss, batches=batches(), population=len(SIZES), engine=fl.packed(2), **more)
    states, told = [compiled(algorithm)[0](softmax_params(), jax.random.key(7))], []
    for cohort in COHORTS:
        state, metrics = advanced(algorithm, data(), states[-1], (cohort,), LIMITS)
        states.append(state)
        told.append(metrics)
    return algorithm, states[1:], told


def start():
    return np.asarray(softmax_params(), float)


@functools.cache
def examples(k):
    """All of a client's, x and y."""
    made = softmax_data()
    rows = slice(int(made.start[k]), int(made.start[k]) + SIZES[k])
    return np.asarray(made.examples["x"])[rows], np.asarray(made.examples["y"])[rows]


def arrived():
    """Of each round the clients whose finite messages arrive, with the batches that they take."""
    for cohort in COHORTS:
        yield {k: list(_taken(k, limit)) for k, limit in zip(cohort, LIMITS, strict=True) if k not in (NOBODY, LOST) and limit}


def _taken(k, limit):
    x, y = examples(k)
    firsts = [first for _ in range(EPOCHS) for first in range(0, len(y), BATCH)]
    for first in firsts[:limit]:
        yield x[first : first + BATCH], y[first : first + BATCH]


def check(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    assert jnp.isfinite(found).all()
