"""FedExP: the server's rates of the tables, a loop in NumPy over ragged clients, and what is refused."""

import jax
import numpy as np
import optax
import pytest
import quadratics
import ragged
from problems import softmax_data, softmax_loss, softmax_params
from quadratics import A4, A5, trajectory
from ragged import RATE, gradient

import fedjax_lite as fl

EPS = 0.01


def by_hand():
    """The model that is sent after each round, and the server's rate."""
    x = ragged.start()
    for clients in ragged.arrived():
        changes = []
        for taken in clients.values():
            y = x
            for batch in taken:
                y = y - RATE * gradient(y, batch)
            changes.append(y - x)
        average = np.mean(changes, axis=0)
        rate = max(1, np.sum(np.square(changes)) / (2 * len(changes) * (np.sum(average**2) + EPS)))
        x = x + rate * average
        yield x, rate


def test_ragged_rounds_equal_the_numpy_loop(x64):
    algorithm, states, told = ragged.run(lambda loss_fn, **more: fl.algorithms.fedexp(loss_fn, optax.sgd(RATE), eps=EPS, **more))
    before, rates = ragged.start(), []
    for state, metrics, (x, rate) in zip(states, told, by_hand(), strict=True):
        ragged.assert_same(state.server.params, x)
        ragged.assert_same(algorithm.params(state), (x + before) / 2)
        ragged.assert_same(metrics["server_rate"].item(), rate)
        before = x
        rates.append(rate)
    assert max(rates) > 1.05 and told[0]["uplink_bits"].item() == 3 * 64 * before.size  # the norms are not sent


@pytest.mark.deep
@pytest.mark.parametrize(
    "problem, more, rates",
    [
        (A4, {}, [18.0303648657, 1, 1.2967887622]),
        (A5, {}, [1, 1.1175767995, 2.2369131091, 1.0385356323]),
        (A5, dict(convention="released", aggregator=fl.aggregators.weighted_mean()), [1, 1, 1.0073267612, 2.3398302017]),
    ],
    ids=["all", "uniform", "released"],
)
def test_the_server_goes_as_far_as_in_the_table(problem, more, rates, x64):
    batches = quadratics.batches(problem)
    made = fl.algorithms.fedexp(quadratics.loss_fn, optax.sgd(0.1), batches=batches, population=problem.population, **more)
    np.testing.assert_allclose(trajectory(made, problem)[2]["server_rate"], rates, atol=1.1e-9)


def test_what_is_refused():
    def make(**more):
        return fl.algorithms.fedexp(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=7, **more)

    with pytest.raises(ValueError, match="fedexp: eps must be positive and finite, got 0"):
        make(eps=0)
    with pytest.raises(ValueError, match="fedexp: convention must be .paper. .eps. or .released. .eps times the clients., got .own."):
        make(convention="own")
    with pytest.raises(ValueError, match="fedexp: clients send the squared norms of their changes beside.*for instance fedavg"):
        make(aggregator=fl.aggregators.dp_mean(1.0, 1.0, 4))
    made = make(convention="released", uplink=fl.uplink.local_gaussian(clip=1.0, noise_multiplier=1.0))
    with pytest.raises(ValueError, match="fedexp: convention .released. counts the clients, and that is private here: take .paper."):
        fl.simulate(made, softmax_data(), softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
