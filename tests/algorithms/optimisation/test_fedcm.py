"""FedCM against plain NumPy: ragged clients, a schedule, clients that are missing; its identities, and what it refuses."""

import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4, A5, A5_RAGGED, trajectory
from ragged import COHORTS, assert_same, gradient, start, states, taking_part

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")


def build(**more):
    return fl.algorithms.fedcm(quadratics.loss_fn, **{"batches": quadratics.batches(A5), "population": 5, "learning_rate": 0.1} | more)


def by_hand(alpha, rate):
    """The model and the direction after each round."""
    x, direction = start(), 0.0
    for round, ids in enumerate(COHORTS):
        changes, directions = [], []
        for _, batches in taking_part(ids):
            y, taken = x, 0.0
            for j, batch in enumerate(batches):
                y = y - rate(round, j) * (alpha * gradient(y, batch) + (1 - alpha) * direction)
                taken += rate(round, j)
            changes.append(y - x)
            directions.append((x - y) / taken)
        x, direction = x + np.mean(changes, axis=0), np.mean(directions, axis=0)
        yield x, direction


def test_rounds_equal_the_numpy_loop():
    """The direction is divided by the sum of the step sizes that each client took, which here differ by client and step."""
    found, params = states("fedcm", alpha=0.4, learning_rate=fl.on_step(lambda j: 0.5 / (1 + j)))
    expected = by_hand(0.4, lambda round, j: 0.5 / (1 + j))
    assert_same([(params(state), state.server.direction) for state in found], list(expected))


@pytest.mark.deep
def test_a_schedule_on_rounds_equals_the_numpy_loop():
    """A direction is a gradient: it is divided by the rate of the round that made it, not of the next."""
    found, params = states("fedcm", learning_rate=fl.on_round(lambda t: 0.5 / (1 + t)))
    expected = by_hand(0.1, lambda round, j: 0.5 / (1 + round))
    assert_same([(params(state), state.server.direction) for state in found], list(expected))


@pytest.mark.deep
def test_the_direction_is_that_of_the_table():
    states, _, metrics = trajectory(build(), A5)
    expected = [
        (-0.2411683565, -0.0247512469), (-0.0723451411, 0.0146662934), (0.0595126532, -0.0844780768), (-0.0826011116, -0.1310599438),
    ]  # fmt: skip
    np.testing.assert_allclose(states.server.direction, expected, atol=1e-9)
    assert metrics["uplink_bits"].tolist() == [3 * 64 * clients for clients in (2, 3, 2, 2)]  # the change and one number
    assert metrics["downlink_bits"].tolist() == [4 * 64 * clients for clients in (2, 3, 2, 2)]  # the model and the direction


@pytest.mark.deep
def test_alpha_one_is_fedavg():
    options = {"batches": quadratics.batches(A5_RAGGED), "population": 5}
    plain = fl.algorithms.fedavg(quadratics.loss_fn, optax.sgd(0.1), aggregator=fl.aggregators.mean(), **options)
    found, expected = (trajectory(algorithm, A5_RAGGED)[1] for algorithm in (build(alpha=1.0, **options), plain))
    np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.deep
def test_the_limit():
    """D is 0 there, so that it is FedAvg's at the rate alpha eta: where sum_k H_k (c_k - x) = 0, H_k = 1 - (1 - alpha eta A_k)^5."""
    for alpha in (0.1, 0.5):
        pulled = 1 - (1 - 0.1 * alpha * A4.a) ** 5
        built = build(alpha=alpha, batches=quadratics.batches(A4), population=3)
        np.testing.assert_allclose(trajectory(built, A4, 3000)[1][-1], (pulled * A4.c).sum(0) / pulled.sum(0), atol=1e-12)


@pytest.mark.deep
def test_a_rule_for_each_part_and_an_uplink_of_the_change_alone():
    """The median of two is their mean; an uplink that halves and thins the change does so to the direction; the divisor is sent."""
    rules = fl.aggregators.by_part(params=fl.aggregators.median(), direction=fl.aggregators.mean())
    found = trajectory(build(aggregator=rules), A5, 1)[1]
    np.testing.assert_allclose(found, [(0.1205841783, 0.0123756234)], atol=1e-9)
    states, _, metrics = trajectory(build(uplink=optax.chain(optax.scale(0.5), fl.uplink.top_k(0.5))), A5, 1)
    np.testing.assert_allclose(states.server.direction, [(-0.2411683565 / 2, 0)], atol=1e-9)
    assert metrics["uplink_bits"].tolist() == [2 * (64 + 1 + 64)]  # a value, its position and the divisor, of both clients


REFUSED = {
    "alpha": ({"alpha": 0.0}, r"fedcm: alpha must be in \(0, 1\], got 0.0"),
    "server rate": ({"server_learning_rate": 0}, "fedcm: server_learning_rate must be positive and finite, got 0"),
    "no clock": ({"learning_rate": optax.constant_schedule(0.1)}, "schedule without a clock.*wrap it in fl.on_round"),
    "private": (
        {"aggregator": fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)},
        "fedcm: clients send the sum of their step sizes beside the model's change, and a private aggregator .* take a method",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**arguments)
