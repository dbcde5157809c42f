"""q-FedAvg: a loop in NumPy over ragged clients, its fixed points, and what is refused."""

import numpy as np
import pytest
import quadratics
import ragged
from quadratics import A4, trajectory
from ragged import RATE, gradient, losses

import fedjax_lite as fl

Q, SERVER_RATE = 1.5, 0.5


def by_hand(rate):
    """The model after each round, with the round's rate."""
    x = ragged.start()
    for round, clients in enumerate(ragged.arrived()):
        eta, moves, steps = rate(round), 0, 0
        for k, taken in clients.items():
            y, loss = x, losses(x, k).mean() + 1e-10
            for batch in taken:
                y = y - eta * gradient(y, batch)
            w = (x - y) / eta
            moves = moves + loss**Q * w
            steps = steps + Q * loss ** (Q - 1) * np.sum(w**2) + loss**Q / eta
        x = x - SERVER_RATE * moves / steps
        yield x


def test_ragged_rounds_equal_the_numpy_loop(x64):
    """F_k is over all of a client's examples, where it is cut short too; L follows a schedule of the rate."""
    rate = lambda round: RATE / (1 + round)  # noqa: E731
    more = dict(learning_rate=fl.on_round(rate), q=Q, server_learning_rate=SERVER_RATE)
    algorithm, states, told = ragged.run(fl.algorithms.qfedavg, **more)
    for state, x in zip(states, by_hand(rate), strict=True):
        ragged.assert_same(algorithm.params(state), x)
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1]
    first = ragged.arrived()[0]
    each = np.concatenate([losses(ragged.start(), k) for k in first])
    ragged.assert_same(told[0]["initial_loss"].item(), each.mean())


@pytest.mark.deep
@pytest.mark.parametrize(
    "q, steps, limit, rounds",
    [
        (1.0, 5, (-0.5134891304, 0.0026233212), 300),
        (5.0, 5, (-0.7061907391, -0.0068179365), 3000),
        (1.0, 1, (-0.63334755, -0.13015808), 3000),  # the optimum of q-FFL
        (5.0, 1, (-0.79419922, -0.05718798), 30000),
    ],
)
def test_everyone_for_ever(q, steps, limit, rounds, x64):
    batches = quadratics.batches(A4)._replace(steps=steps)
    made = fl.algorithms.qfedavg(quadratics.loss_fn, learning_rate=0.1, batches=batches, population=3, q=q)
    np.testing.assert_allclose(trajectory(made, A4, rounds)[1][-1], limit, atol=1e-8)


def test_what_is_refused():
    def make(**more):
        given = dict(batches=fl.Batches(4), population=7, learning_rate=0.1, q=1.0) | more
        return fl.algorithms.qfedavg(quadratics.loss_fn, **given)

    with pytest.raises(ValueError, match="qfedavg: q must be finite and not negative, got -1"):
        make(q=-1)
    with pytest.raises(ValueError, match="qfedavg: learning_rate must be positive and finite, got 0"):
        make(learning_rate=0)
    for clock in (fl.on_step, fl.on_client_step):
        with pytest.raises(ValueError, match="qfedavg: L = 1 / learning_rate is one for a round, so give fl.on_round, not .*step"):
            make(learning_rate=clock(lambda step: 0.1))
    with pytest.raises(ValueError, match="qfedavg: server_learning_rate must be positive and finite, got -1"):
        make(server_learning_rate=-1)
    with pytest.raises(ValueError, match="qfedavg: clients send their losses.*for instance fedavg"):
        make(aggregator=fl.aggregators.dp_mean(1.0, 1.0, 4))
