"""FedLion against plain NumPy on ragged minibatches with missing clients; its momentum and its bits, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4, A5, trajectory
from ragged import COHORTS, assert_same, gradient, start, states, taking_part

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")


def build(problem=A5, **more):
    options = {"batches": quadratics.batches(problem), "population": problem.population, "learning_rate": 0.03}
    return fl.algorithms.fedlion(quadratics.loss_fn, **options | more)


def by_hand(b1, b2, rate):
    """The model and the momentum after each round."""
    x, m = start(), 0.0
    for round, ids in enumerate(COHORTS):
        taken, momenta = [], []
        for _, batches in taking_part(ids):
            y, mine, steps = x, m, 0
            for batch in batches:
                g = gradient(y, batch)
                sign = np.sign(b1 * mine + (1 - b1) * g)
                y, steps, mine = y - rate(round) * sign, steps + sign, b2 * mine + (1 - b2) * g
            taken.append(steps)
            momenta.append(mine)
        x, m = x - rate(round) * np.mean(taken, axis=0), np.mean(momenta, axis=0)
        yield x, m


@pytest.mark.parametrize("scheduled", [True, pytest.param(False, marks=pytest.mark.deep)])
def test_rounds_equal_the_numpy_loop(scheduled):
    rate = (lambda t: 0.02 / (1 + t)) if scheduled else (lambda t: 0.02)
    found, params = states("fedlion", b1=0.6, b2=0.8, learning_rate=fl.on_round(rate) if scheduled else 0.02)
    assert_same([(params(state), state.server.momentum) for state in found], list(by_hand(0.6, 0.8, rate)))


@pytest.mark.deep
def test_the_momentum_is_that_of_the_table():
    found, _, metrics = trajectory(build(A4), A4._replace(start=(0.33, 0.77)))
    expected = [(0.0544581006, 0.1157775942), (0.1025714662, 0.2201631069), (0.1432689520, 0.3117347634)]
    np.testing.assert_allclose(found.server.momentum, expected, atol=1e-9)
    assert metrics["uplink_bits"].tolist() == [3 * 2 * (8 + 64)] * 3  # a whole number and a momentum for each of two parameters


@pytest.mark.deep
def test_the_sign_of_zero_is_zero():
    """At a client's optimum nothing is a step; the others count as many as they took."""
    problem = A4._replace(start=(1.0, 0.0), cohorts=((0, 1, 2),))
    found = trajectory(build(problem, b1=0.0, learning_rate=0.01), problem)[1]
    np.testing.assert_allclose(found, [(1 - 0.01 * (0 + 5 + 5) / 3, 0.01 * (0 + 5 - 5) / 3)], atol=1e-15)


@pytest.mark.deep
def test_more_steps_than_eight_bits_hold():
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}])
    built = fl.algorithms.fedlion(
        lambda params, batch, key: params * batch["x"], learning_rate=1.0, batches=fl.Batches(1, steps=200), population=1
    )
    state, history = fl.simulate(built, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    assert float(built.params(state)) == -200 and history["uplink_bits"].tolist() == [32 + 64]


@pytest.mark.deep
def test_a_rule_for_each_part():
    """Two of three clients take five steps down, in both coordinates."""
    rules = fl.aggregators.by_part(params=fl.aggregators.median(), momentum=fl.aggregators.mean())
    found = trajectory(build(A4, aggregator=rules), A4._replace(start=(0.33, 0.77)), 1)[1]
    np.testing.assert_allclose(found, [(0.33 - 5 * 0.03, 0.77 - 5 * 0.03)], atol=1e-12)


@pytest.mark.deep
def test_an_uplink_may_make_other_numbers_of_whole_ones():
    """It is given floats, whose dtype compressors keep."""
    seen = set()

    def halve(message, params):
        seen.add(message["params"].dtype.name)
        return optax.tree.scale(0.5, message)

    found = trajectory(build(A4, uplink=optax.stateless(halve)), A4._replace(start=(0.33, 0.77)), 1)[1]
    np.testing.assert_allclose(found, [((0.33 + 0.28) / 2, (0.77 + 0.72) / 2)], atol=1e-9)
    assert seen == {"float64"}


REFUSED = {
    "b1": ({"b1": 1.0}, r"fedlion: b1 must be in \[0, 1\), got 1.0"),
    "b2": ({"b2": -0.1}, r"fedlion: b2 must be in \[0, 1\), got -0.1"),
    "clock": (
        {"learning_rate": fl.on_step(optax.constant_schedule(0.1))},
        "fedlion: .* one learning_rate a round: give fl.on_round, not .step",
    ),
    "private": (
        {"aggregator": fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)},
        "fedlion: clients send their momentum beside the model's change.*take a method",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**arguments)
