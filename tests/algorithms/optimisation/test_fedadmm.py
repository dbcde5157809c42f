"""FedADMM against plain NumPy on ragged minibatches with missing clients; where its two forms end, and what it refuses."""

import numpy as np
import pytest
import quadratics
from quadratics import A4, A5, trajectory
from ragged import COHORTS, POPULATION, RATE, assert_same, gradient, start, states, taking_part

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")


def build(problem=A5, **more):
    options = {"batches": quadratics.batches(problem), "population": problem.population, "learning_rate": 0.1, "rho": 1.0}
    return fl.algorithms.fedadmm(quadratics.loss_fn, **options | more)


def by_hand(rho, paper, rate):
    """The model and all clients' u_k after each round."""
    x = start()
    models, duals = np.tile(x, (POPULATION, 1, 1)), np.zeros((POPULATION, *x.shape))
    for ids in COHORTS:
        sent = []
        for k, batches in taking_part(ids):
            y = x
            for batch in batches:
                y = y - RATE * (gradient(y, batch) + duals[k] + rho * (y - x))
            dual = duals[k] + rho * (y - x)
            if paper:
                sent.append((y + dual / rho) - (models[k] + duals[k] / rho))
            else:
                sent.append((y - x) + (dual - duals[k]) / rho)
            models[k], duals[k] = y, dual
        x = x + rate * np.mean(sent, axis=0)
        yield x, duals.copy()


@pytest.mark.parametrize("form", ["paper", pytest.param("released", marks=pytest.mark.deep)])
def test_rounds_equal_the_numpy_loop(form):
    """A client that is missing or not finite keeps its y_k and its u_k."""
    found, params = states("fedadmm", rho=0.5, form=form, server_learning_rate=0.7)
    assert_same([(params(state), state.own.dual) for state in found], list(by_hand(0.5, form == "paper", 0.7)))


LIMITS = {
    "paper": (A4, {}, (-4 / 9, -2 / 7)),  # the optimum
    "released": (A4, {"form": "released"}, (-1 / 3, -4 / 17)),  # where grad F(x) + (x - x_0) / 2 = 0
    "some take part": (A5, {}, (0.44356090, -0.04580794)),  # and the server's rate is 1
}


@pytest.mark.deep
@pytest.mark.parametrize("name", LIMITS)
def test_limits(name):
    problem, options, limit = LIMITS[name]
    np.testing.assert_allclose(trajectory(build(problem, **options), problem, 3000)[1][-1], limit, atol=1e-8)


@pytest.mark.deep
def test_at_the_rate_of_the_paper_the_model_is_the_mean_of_what_clients_hold():
    """x = mean of y_k + u_k / rho over all N, where eta_g = |S| / N."""
    problem = A5._replace(cohorts=((0, 3), (1, 2), (0, 1), (3, 4)))
    found, x, _ = trajectory(build(problem, rho=0.7, server_learning_rate=2 / 5), problem)
    np.testing.assert_allclose(np.mean(found.own.model + found.own.dual / 0.7, axis=1), x, atol=1e-14)


REFUSED = {
    "rho": ({"rho": 0}, "fedadmm: rho must be positive and finite, got 0"),
    "form": ({"form": "code"}, 'fedadmm: form must be "paper" or "released", got .code.'),
    "weights": ({"aggregator": fl.aggregators.weighted_mean()}, "fedadmm: x is the mean of.*take fl.aggregators.mean"),
    "private": (
        {"aggregator": fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)},
        "fedadmm: clients keep dual variables.*take a method without such state",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**arguments)
