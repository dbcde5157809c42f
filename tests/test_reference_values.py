"""The three-client quadratic, whose rounds and fixed points are known to ten digits: A = [[1,2],[3,1],[.5,4]],
c = [[1,0],[-1,2],[0,-1]], x0 = 0, rate 0.1, 5 full-gradient steps, everyone takes part.

Fixed point in closed form: y_k = c_k + (1 - eta A_k)^K_k (x - c_k), so x* = sum p_k H_k c_k / sum p_k H_k with
H_k = 1 - (1 - eta A_k)^K_k.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import QUADRATIC_A, QUADRATIC_C, quadratic_data, quadratic_loss, with_steps

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")

UNIFORM, WEIGHTED = np.ones(3) / 3, np.array([0.1, 0.2, 0.7])
FIVE, RAGGED = (5, 5, 5), (2, 5, 10)
PACKED = fl.packed(2)


@functools.cache
def program(make, engine, options):
    """The model after some rounds, compiled once for all weights, steps and numbers of rounds."""

    def after(data, weights, steps, rounds):
        built = make(
            quadratic_loss, optax.sgd(0.1), batches=fl.Batches(1, steps=10, shuffle=False), population=3,
            aggregator=fl.aggregators.weighted_mean(weights), engine=engine, **dict(options),
        )  # fmt: skip
        one = lambda state: fl.advance(built, data, state, with_steps(steps), rounds=1)[0]  # noqa: E731
        state = built.init(jnp.zeros(2), jax.random.key(0))
        return built.params(jax.lax.fori_loop(0, rounds, lambda _, state: one(state), state))

    return jax.jit(after)


def trajectory(rounds, weights=UNIFORM, steps=FIVE, make=fl.algorithms.fedavg, engine=PACKED, **options):
    """The global model after each of the given rounds."""
    after = program(make, engine, tuple(options.items()))
    return np.array([after(quadratic_data(), weights, np.array(steps), t) for t in rounds])


def fixed_point(weights, steps):
    h = 1 - (1 - 0.1 * QUADRATIC_A) ** np.array(steps)[:, None]
    return (weights[:, None] * h * QUADRATIC_C).sum(0) / (weights[:, None] * h).sum(0)


def assert_rows(actual, *expected):
    np.testing.assert_allclose(actual, expected, atol=1e-9, rtol=0)


def test_fedavg_uniform():
    expected = (-0.1408066667, -0.0344066667), (-0.2127279399, -0.0458288772), (-0.2878188885, -0.0515051869)
    assert_rows(trajectory((1, 2, 300)), *np.round(expected, 10))
    np.testing.assert_allclose(expected[2], fixed_point(UNIFORM, FIVE), atol=1e-9)


def test_fedavg_weighted():
    assert_rows(trajectory((1, 2, 300), WEIGHTED), (-0.125435, -0.481764), (-0.2049996317, -0.5806691857), (-0.3430087836, -0.6062196899))


@pytest.mark.parametrize("engine", [fl.padded(), PACKED, fl.sequential()], ids=["padded", "packed", "sequential"])
def test_fedavg_with_unequal_steps(engine):
    assert_rows(trajectory((1, 300), steps=RAGGED, engine=engine), (-0.2139766667, -0.0583111275), (-0.4510491357, -0.0991987609))


def test_fedavgm():
    expected = (-0.1408066667, -0.0344066667), (-0.3394539399, -0.0767948772), (-0.4929756020, -0.0980501635)
    assert_rows(trajectory((1, 2, 3), make=fl.algorithms.fedavgm, momentum=0.9), *expected)


def test_nesterov():
    expected = (-0.1872728667, -0.0457608667), (-0.3325317408, -0.0703731088), (-0.4031826366, -0.0733430005)
    actual = trajectory((1, 2, 3), make=fl.algorithms.fedavgm, momentum=0.9, nesterov=True, server_learning_rate=0.7)
    assert_rows(actual, *expected)


def test_fedsgd_is_gradient_descent_on_all_examples():
    weights = np.array([0.1, 0.2, 0.7])
    built = fl.algorithms.fedsgd(
        quadratic_loss, population=3, learning_rate=0.1, aggregator=fl.aggregators.weighted_mean(weights), engine=fl.sequential()
    )
    run = lambda data: fl.simulate(built, data, jnp.zeros(2), fl.sampling.everyone(), rounds=7, key=jax.random.key(0))  # noqa: E731
    state, history = jax.jit(run)(quadratic_data())
    x, losses = np.zeros(2), []
    for _ in range(7):
        losses.append((0.5 * QUADRATIC_A * (x - QUADRATIC_C) ** 2).sum(1).mean())
        x = x - 0.1 * (weights[:, None] * QUADRATIC_A * (x - QUADRATIC_C)).sum(0)
    np.testing.assert_allclose(built.params(state), x, atol=1e-14)
    np.testing.assert_allclose(history["loss"], losses, atol=1e-14)
    np.testing.assert_allclose(history["initial_loss"], losses, atol=1e-14)
