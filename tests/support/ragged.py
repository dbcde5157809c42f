"""Rounds of ragged clients for plain NumPy oracles: minibatches in order, empty slots, a straggler, a client that is never finite."""

import jax
import numpy as np
from oracles import softmax_regression_gradient
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from rounds import NOBODY, compiled

import fedjax_lite as fl

BATCH, EPOCHS, RATE, BROKEN = 4, 2, 0.3, 5
POPULATION = len(SIZES)
# Five slots a round: who takes part, and the most steps of each slot. Client 2 has six steps, client 1 two.
COHORTS = ((0, 2, BROKEN, 6, NOBODY), (1, 3, 2, NOBODY, 4), (NOBODY, 6, 2, 4, BROKEN))
LIMITS = (99, 99, 5, 1, 99)


def data():
    """The clients of `problems`, one of which has an example that is not a number."""
    found = softmax_data()
    x = np.array(found.examples["x"])
    x[sum(SIZES[:BROKEN])] = np.nan
    return fl.FederatedData({**found.examples, "x": x}, found.start, found.size, found.largest)


def clients():
    """The examples of each client, in double precision."""
    ends = np.cumsum(SIZES)[:-1]
    with jax.enable_x64(True):
        found = softmax_data().examples
    return list(zip(*(np.split(np.asarray(found[name]), ends) for name in "xy"), strict=True))


def taking_part(ids, limits=LIMITS, epochs=EPOCHS):
    """The clients whose messages arrive, each with the batches of its steps, no more than its slot's limit."""
    for k, limit in zip(ids, limits, strict=True):
        if k not in (NOBODY, BROKEN):
            x, y = clients()[k]
            epoch = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH)]
            yield k, (epoch * epochs)[:limit]


def gradient(y, batch):
    """g_k(y) on a batch."""
    return softmax_regression_gradient(y, *batch)


def start():
    """The first model."""
    return np.asarray(softmax_params(), float)


def states(name, *optimizer, cohorts=COHORTS, limits=LIMITS, batches=None, **more):
    """The states of the algorithm of this name after each round, and its function of a state to the model."""
    batches = fl.Batches(BATCH, epochs=EPOCHS, shuffle=False) if batches is None else batches
    rate = {} if optimizer else {"learning_rate": RATE}
    built = getattr(fl.algorithms, name)(softmax_loss, *optimizer, batches=batches, population=POPULATION, **rate | more)
    init, step = compiled(built)
    state, found, examples = init(softmax_params(), jax.random.key(0)), [], data()
    for ids in cohorts:
        state, _ = step(state, examples, np.asarray(ids, np.int32), np.asarray(limits, np.int32))
        found.append(state)
    return found, built.params


def assert_same(found, expected):
    """Compare trees of arrays in double precision."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-11), found, expected)
