"""The small run that engines, devices and studies must not change."""

import functools

import jax
import numpy as np
import optax
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl

ENGINES = {"packed(1)": fl.packed(1), "packed(3)": fl.packed(3), "padded": fl.padded(), "sequential": fl.sequential()}
RATE = np.float64(0.2)  # an array's type: one compiled program for every rate


def gathered(rule):
    """The same rule as one that must see all messages together."""

    def finish(part, state, key):
        return rule.finish(rule.collect(*part, state), state, key)

    return rule._replace(collect=lambda messages, cohort, state: (messages, cohort), finish=finish, additive=False)


def experiment(engine, adds=True):
    """Two rounds with a stateful uplink: everything a round returns depends on which row belongs to whom.

    Args:
        adds: whether parts of a cohort's messages add up, or all must be gathered.
    """

    def run(data, key, rate):
        mean = fl.aggregators.weighted_mean()
        algorithm = fl.federate(
            fl.sgd_work(softmax_loss, optax.sgd(rate)),
            mean if adds else gathered(mean),
            fl.optimizer_server(optax.sgd(1.0)),
            batches=fl.Batches(4, epochs=2, shuffle=False),
            population=len(SIZES),
            uplink=optax.trace(0.5),
            engine=engine,
        )
        state, history = fl.simulate(algorithm, data, softmax_params(), fl.sampling.uniform(5), rounds=2, key=key)
        return algorithm.params(state), state.uplink, history

    return run


# The oracle: on one device, one client after another; compiled once for all data, keys and rates.
alone = jax.jit(experiment(fl.sequential()))


@functools.cache
def expected():
    """What becomes of the data, key and rate of `given`; in double precision, as the other functions are called."""
    return alone(*given())


def given():
    """What an experiment is given."""
    return softmax_data(), jax.random.key(3), RATE


def assert_same(one, other, rtol=1e-10, atol=1e-12):
    """To the order of sums."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def axes_mesh(**axes):
    """A mesh in use with axes of these names and sizes, of the first devices."""
    types = (jax.sharding.AxisType.Auto,) * len(axes)
    devices = jax.devices()[: int(np.prod(list(axes.values())))]
    return jax.set_mesh(jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=types, devices=devices))
