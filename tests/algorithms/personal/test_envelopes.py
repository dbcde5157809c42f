"""pFedMe and Per-FedAvg against tables of reference values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4, A5, trajectory

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
THETAS = [
    (0.4210216275, 0), (-0.6928944725, 0.8679063539), (0.2469876197, -0.8297734735), (1.2910127160, 0.2441903908),
    (-0.1281856817, 0.2952333136),
]  # fmt: skip


def pfedme(problem=A5, **more):
    given = {"batches": quadratics.batches(problem), "population": problem.population, "lam": 1.0, "inner_rate": 0.1}
    return fl.algorithms.pfedme(quadratics.loss_fn, learning_rate=0.1, **given | more)


def per_fedavg(problem=A5, rate=0.1, **more):
    given = {"batches": quadratics.batches(problem), "population": problem.population, "alpha": 0.1}
    return fl.algorithms.per_fedavg(quadratics.loss_fn, optax.sgd(rate), **given | more)


def test_pfedme_is_its_table():
    algorithm = pfedme()
    states, params, _ = trajectory(algorithm, A5, 2)
    np.testing.assert_allclose(params, [(0.3267854982, 0.0446702331), (0.1263017671, 0.0632100360)], atol=1e-9)
    np.testing.assert_allclose(states.own.model[-1], THETAS, atol=1e-9)
    np.testing.assert_array_equal(algorithm.models(jax.tree.map(lambda x: x[-1], states)), states.own.model[-1])
    _, params, _ = trajectory(pfedme(server_learning_rate=2.0), A5, 2)
    np.testing.assert_allclose(params, [(0.6535709964, 0.0893404662), (0.1220334564, 0.1056373421)], atol=1e-9)


@pytest.mark.deep
def test_pfedme_of_exact_points():
    _, params, _ = trajectory(pfedme(inner_steps=200), A5, 2)
    np.testing.assert_allclose(params, [(0.4048639345, 0.0779598971), (0.1523922067, 0.1378295097)], atol=1e-9)
    slow = fl.algorithms.pfedme(
        quadratics.loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=1, shuffle=False), population=3, lam=1.0, inner_rate=0.1,
        inner_steps=200,
    )  # fmt: skip
    state, _ = fl.simulate(slow, A4.data(), jnp.zeros(2), fl.sampling.everyone(), rounds=500, key=jax.random.key(0))
    np.testing.assert_allclose(slow.params(state), (-0.15789474, 0.10169492), atol=1e-8)


@pytest.mark.parametrize(
    ("form", "rounds", "limit"),
    [
        ("first order", [(0.7697719851, 0.1079920036), (0.0967029388, 0.1340173178)], (-0.34532374, -0.12244898)),
        ("exact", [(0.6680700340, 0.1030803319), (0.1472863686, 0.1799482553)], (-0.2416476, 0.0509915)),
    ],
)
def test_per_fedavg_is_its_table(form, rounds, limit):
    np.testing.assert_allclose(trajectory(per_fedavg(form=form), A5, 2)[1], rounds, atol=1e-9)
    slow = per_fedavg(A4, form=form, batches=fl.Batches(None, steps=1, shuffle=False))
    state, _ = fl.simulate(slow, A4.data(), jnp.zeros(2), fl.sampling.everyone(), rounds=500, key=jax.random.key(0))
    np.testing.assert_allclose(slow.params(state), limit, atol=1e-7)


def test_per_fedavg_takes_its_two_gradients_on_two_halves():
    """One client of three examples x: b is the first two, b' the third; by hand."""
    data = fl.FederatedData.from_clients([{"x": np.array([1.0, 3.0, 10.0])}])
    algorithm = fl.algorithms.per_fedavg(
        lambda params, batch, key: (params - batch["x"]) ** 2 / 2, optax.sgd(1.0), batches=fl.Batches(None, shuffle=False), population=1,
        alpha=0.5,
    )  # fmt: skip
    state, history = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    ahead = 0 - 0.5 * (0 - 2.0)
    np.testing.assert_allclose(algorithm.params(state), -(1 - 0.5) * (ahead - 10.0), atol=1e-12)
    np.testing.assert_allclose(history["loss"], (1 + 9) / 4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pfedme(lam=0.0), "pfedme: lam must be"),
        (lambda: pfedme(inner_rate=-1.0), "pfedme: inner_rate must be"),
        (lambda: pfedme(inner_steps=0), "pfedme: inner_steps must be"),
        (lambda: pfedme(aggregator=fl.aggregators.weighted_mean()), "pfedme: x moves to the mean of all clients' w_k"),
        (lambda: per_fedavg(alpha=0.0), "per_fedavg: alpha must be"),
        (lambda: per_fedavg(form="second"), 'per_fedavg: form must be "exact" or "first order"'),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
