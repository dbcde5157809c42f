"""FedNova's norms, in closed form and as the paper's sums, and that it is FedAvg where all clients take as many steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4_RAGGED, A5, trajectory

import fedjax_lite as fl
from fedjax_lite.algorithms.optimisation.fednova import _normalised

RATE = 0.1


def norm(momentum, mu, steps):
    """|a|_1 as the local optimizer counts it."""
    optimizer, shared = _normalised(RATE, momentum, mu), fl.Shared(jnp.zeros(2))
    params, state = jnp.zeros(2), optimizer.init(jnp.zeros(2))
    for _ in range(steps):
        update, state = optimizer.update(jnp.ones(2), state, params, shared=shared, own=())
        params = params + update
    np.testing.assert_allclose(-params, state[-1].length, rtol=1e-14)  # which is what it is: under a gradient of 1
    return float(state[-1].length) / RATE


@pytest.mark.parametrize(("momentum", "mu", "expected"), [(0.0, 0.0, 5.0), (0.9, 0.0, 13.1441), (0.0, 1.0, 4.0951), (0.9, 1.0, 10.2916)])
def test_the_norm_of_five_steps(momentum, mu, expected, x64):
    """[K - rho (1 - rho^K) / (1 - rho)] / (1 - rho), sum (1 - eta mu)^j, and both, with the proximal term in the buffer."""
    assert round(norm(momentum, mu, 5), 4) == expected
    responses = [response(momentum, mu, 5, i) for i in range(5)]
    np.testing.assert_allclose(norm(momentum, mu, 5), sum(map(abs, responses)), rtol=1e-12)


def response(momentum, mu, steps, i):
    """(x - y_K) / eta after a gradient of 1 at step i and 0 elsewhere: the entry a_i."""
    y, v = 0.0, 0.0
    for j in range(steps):
        v = momentum * v + (j == i) + mu * y
        y = y - RATE * v
    return -y / RATE


def test_with_equal_steps_it_is_fedavg(x64):
    found = fl.algorithms.fednova(quadratics.loss_fn, learning_rate=RATE, batches=quadratics.batches(A5), population=A5.population)
    expected = fl.algorithms.fedavg(quadratics.loss_fn, optax.sgd(RATE), batches=quadratics.batches(A5), population=A5.population)
    models = [trajectory(algorithm, A5)[1] for algorithm in (found, expected)]
    np.testing.assert_allclose(*models, rtol=1e-13)


@pytest.mark.deep
def test_its_fixed_point(x64):
    algorithm = fl.algorithms.fednova(quadratics.loss_fn, learning_rate=RATE, batches=quadratics.batches(A4_RAGGED), population=3)
    np.testing.assert_allclose(trajectory(algorithm, A4_RAGGED, 300)[1][-1], (-0.2367598223, 0.1782705128), atol=1e-9)


@pytest.mark.deep
def test_a_schedule_of_the_rate_is_in_the_norm(x64):
    """With rates 0.1, 0.05, ... of the local steps, and one client, x moves by what the client moved."""
    algorithm = fl.algorithms.fednova(
        quadratics.loss_fn, learning_rate=fl.on_step(lambda j: RATE / (1 + j)), momentum=0.5, mu=0.3,
        batches=fl.Batches(None, steps=4), population=1,
    )  # fmt: skip
    data = fl.FederatedData.from_clients([{"a": np.ones((1, 2)), "c": np.ones((1, 2))}])
    state, _ = fl.simulate(algorithm, data, jnp.zeros(2), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    y, v = 0.0, 0.0
    for j in range(4):
        v = 0.5 * v + (y - 1) + 0.3 * y
        y = y - RATE / (1 + j) * v
    np.testing.assert_allclose(algorithm.params(state), y, rtol=1e-14)
