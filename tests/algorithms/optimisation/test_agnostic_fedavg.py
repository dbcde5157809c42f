"""Agnostic FedAvg: lambda of the tables, a loop in NumPy over ragged clients of several domains, the minimax point, what is refused."""

import numpy as np
import optax
import pytest
import quadratics
import ragged
from quadratics import A4, trajectory
from ragged import RATE, SIZES, gradient, losses

import fedjax_lite as fl

DOMAINS, GAMMA, SERVER_RATE = np.array([0, 1, 0, 3, 1, 0, 2]), 0.7, 0.5  # 0 and 1 have clients in every cohort, 2 and 3 only in one


def exponentiated(weights, step):
    return weights * np.exp(step) / np.sum(weights * np.exp(step))


def projected(weights, step):
    """On the simplex, by sorting."""
    v = weights + step
    u = np.sort(v)[::-1]
    above = (np.cumsum(u) - 1) / np.arange(1, len(u) + 1)
    return np.maximum(v - above[np.flatnonzero(u > above)[-1]], 0)


def by_hand(move):
    """The model and lambda after each round."""
    x, weights = ragged.start(), np.full(4, 0.25)
    for clients in ragged.arrived():
        held = np.zeros(4)
        for k in clients:
            held[DOMAINS[k]] += SIZES[k]
        moved, total, lost = 0, 0, np.zeros(4)
        for k, taken in clients.items():
            y, j = x, DOMAINS[k]
            for batch in taken:
                y = y - RATE * gradient(y, batch)
            moved = moved + weights[j] * SIZES[k] / held[j] * (y - x)
            total = total + weights[j] * SIZES[k] / held[j]
            lost[j] += losses(x, k).sum() / held[j]
        x, weights = x + SERVER_RATE * moved / total, move(weights, GAMMA * lost)
        yield x, weights


@pytest.mark.parametrize("move", [exponentiated, pytest.param(projected, marks=pytest.mark.deep)])
def test_ragged_rounds_equal_the_numpy_loop(move, x64):
    def make(loss_fn, **more):
        more |= dict(domains=DOMAINS, gamma=GAMMA, update=move.__name__, server_learning_rate=SERVER_RATE)
        return fl.algorithms.agnostic_fedavg(loss_fn, optax.sgd(RATE), **more)

    algorithm, states, told = ragged.run(make)
    for state, metrics, (x, weights) in zip(states, told, by_hand(move), strict=True):
        ragged.assert_same(algorithm.params(state), x)
        ragged.assert_same(state.aggregator, weights)
        ragged.assert_same(metrics["largest_lambda"].item(), weights.max())
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1]


LAMBDAS = {
    "exponentiated": [
        (0.2847629294, 0.3843897483, 0.3308473224), (0.2469222393, 0.4290423337, 0.3240354269), (0.2173939796, 0.4609247489, 0.3216812714),
    ],
    "projected": [
        (0.1833333333, 0.4833333333, 0.3333333333), (0.0585794956, 0.6110616231, 0.3303588812), (0, 0.6432256439, 0.3567743561),
    ],
}  # fmt: skip


def made(rate=0.1, steps=5, **more):
    batches = quadratics.batches(A4)._replace(steps=steps)
    return fl.algorithms.agnostic_fedavg(quadratics.loss_fn, optax.sgd(rate), batches=batches, population=3, **more)


@pytest.mark.deep
@pytest.mark.parametrize("update", LAMBDAS)
def test_lambda_is_that_of_the_table(update, x64):
    np.testing.assert_allclose(trajectory(made(gamma=0.1, update=update), A4)[0].aggregator, LAMBDAS[update], atol=1.1e-9)


@pytest.mark.deep
def test_the_mean_iterate_nears_the_minimax_point(x64):
    models = trajectory(made(steps=1, gamma=0.01, update="projected"), A4, 4000)[1]
    np.testing.assert_allclose(np.mean(models, axis=0), (-0.9156, -0.0344), atol=1e-3)  # as the catalogue; (-0.9194, -0.0339) in the limit


def test_what_is_refused():
    with pytest.raises(ValueError, match="agnostic_fedavg: gamma must be positive and finite, got 0"):
        made(gamma=0)
    with pytest.raises(ValueError, match="agnostic_fedavg: update must be 'exponentiated' or 'projected', got 'own'"):
        made(gamma=1.0, update="own")
    with pytest.raises(ValueError, match="agnostic_fedavg: server_learning_rate must be positive and finite, got 0"):
        made(gamma=1.0, server_learning_rate=0)
    for domains in ([0, 1], [0.0, 1.0, 2.0], [0, -1, 2]):
        with pytest.raises(ValueError, match="agnostic_fedavg: domains must be whole numbers from 0, one for each of 3 clients, got"):
            made(gamma=1.0, domains=domains)
