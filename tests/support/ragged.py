"""Rounds of ragged clients for plain NumPy oracles: minibatches in order, two epochs, empty slots, clients that are cut short or drop out,
and one whose message is never finite."""

import functools

import jax
import numpy as np
from oracles import softmax_regression_gradient, softmax_regression_losses
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from rounds import NOBODY, compiled

import fedjax_lite as fl

BATCH, EPOCHS, RATE = 4, 2, 0.3
LOST = 5  # whose examples are not numbers
POPULATION = len(SIZES)
# Five slots a round: who takes part, and the most steps of each slot. The client in the last slot drops out.
COHORTS = ((0, 2, LOST, NOBODY, 4), (1, 2, 6, 3, 4), (4, 0, NOBODY, LOST, 2))
LIMITS = (99, 5, 99, 1, 0)


@functools.cache
def examples(k):
    """All of a client's, x and y, in double precision."""
    with jax.enable_x64(True):
        data = softmax_data()
    rows = slice(sum(SIZES[:k]), sum(SIZES[: k + 1]))
    return np.asarray(data.examples["x"])[rows], np.asarray(data.examples["y"])[rows]


def data():
    """The clients of `problems`, but for the lost one's examples."""
    found = softmax_data()
    x = np.array(found.examples["x"])
    x[sum(SIZES[:LOST]) : sum(SIZES[: LOST + 1])] = np.nan
    return fl.FederatedData({**found.examples, "x": x}, found.start, found.size, found.largest)


def taking_part(ids, limits=LIMITS, epochs=EPOCHS):
    """The clients whose messages arrive, each with the batches of its steps, no more than its slot's limit."""
    for k, limit in zip(ids, limits, strict=True):
        if k not in (NOBODY, LOST) and limit:
            x, y = examples(k)
            epoch = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH)]
            yield k, (epoch * epochs)[:limit]


def arrived():
    """Of each round the clients whose messages arrive, with their batches."""
    return [dict(taking_part(ids)) for ids in COHORTS]


def gradient(y, batch):
    """g_k(y) on a batch."""
    return softmax_regression_gradient(y, *batch)


def losses(x, k):
    """The losses of a model on all of a client's examples."""
    return softmax_regression_losses(x, *examples(k))


def start():
    """The first model."""
    return np.asarray(softmax_params(), float)


def run(make, *optimizer, cohorts=COHORTS, limits=LIMITS, batches=None, **more):
    """The algorithm `make(loss_fn, ...)`, its states after each round, and the rounds' metrics."""
    batches = fl.Batches(BATCH, epochs=EPOCHS, shuffle=False) if batches is None else batches
    algorithm = make(softmax_loss, *optimizer, batches=batches, population=POPULATION, engine=fl.packed(2), **more)
    init, step = compiled(algorithm)
    state, states, told = init(softmax_params(), jax.random.key(0)), [], []
    for ids in cohorts:
        state, metrics = step(state, data(), np.asarray(ids, np.int32), np.asarray(limits, np.int32))
        states.append(state)
        told.append(metrics)
    return algorithm, states, told


def states(name, *optimizer, **more):
    """The states of the algorithm of this name after each round, and its function of a state to the model."""
    rate = {} if optimizer else {"learning_rate": RATE}
    algorithm, found, _ = run(getattr(fl.algorithms, name), *optimizer, **rate | more)
    return found, algorithm.params


def assert_same(found, expected):
    """Compare trees of arrays in double precision; nothing is infinite or no number."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11), found, expected)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
