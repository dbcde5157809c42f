"""Mime and MimeLite: the momentum of the table, a loop in NumPy over ragged clients, limits, and what is refused."""

import numpy as np
import pytest
import quadratics
import ragged
from quadratics import A4, trajectory
from ragged import RATE, SIZES, gradient

import fedjax_lite as fl

BETA, SERVER_RATE = 0.8, 0.5


def by_hand(corrected):
    """The model and the momentum after each round, by examples."""
    x, m = ragged.start(), 0
    for clients in ragged.arrived():
        weights = np.array([SIZES[k] for k in clients]) / sum(SIZES[k] for k in clients)
        c = np.tensordot(weights, [gradient(x, ragged.examples(k)) for k in clients], axes=1)
        changes = []
        for taken in clients.values():
            y = x
            for batch in taken:
                g = gradient(y, batch) - gradient(x, batch) + c if corrected else gradient(y, batch)
                y = y - RATE * ((1 - BETA) * g + BETA * m)
            changes.append(y - x)
        x, m = x + SERVER_RATE * np.tensordot(weights, changes, axes=1), (1 - BETA) * c + BETA * m
        yield x, m


@pytest.mark.parametrize("name", ["mime", pytest.param("mimelite", marks=pytest.mark.deep)])
def test_ragged_rounds_equal_the_numpy_loop(name, x64):
    """All of a client's examples are in c, where it is cut short too."""
    make, more = getattr(fl.algorithms, name), dict(learning_rate=RATE, beta=BETA, server_learning_rate=SERVER_RATE)
    algorithm, states, told = ragged.run(make, **more)
    for state, (x, m) in zip(states, by_hand(name == "mime"), strict=True):
        ragged.assert_same(algorithm.params(state), x)
        ragged.assert_same(state.server.momentum, m)
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1]
    assert told[0]["uplink_bits"].item() == 3 * 2 * 64 * x.size  # gradients and changes of three clients


@pytest.mark.deep
def test_the_momentum_is_that_of_the_table(x64):
    made = fl.algorithms.mime(quadratics.loss_fn, learning_rate=0.1, batches=quadratics.batches(A4), population=3, beta=0.9)
    expected = [(0.0666666667, 0.0666666667), (0.1218132966, 0.1192411508), (0.1625771884, 0.1532767807)]
    np.testing.assert_allclose(trajectory(made, A4)[0].server.momentum, expected, atol=1.1e-9)


@pytest.mark.deep
@pytest.mark.parametrize(
    "name, limit", [("mime", (-0.4444444444, -0.2857142857)), ("mimelite", (-0.44292581, -0.28343763))]
)  # the optimum, and not
def test_everyone_for_ever(name, limit, x64):
    made = getattr(fl.algorithms, name)(quadratics.loss_fn, learning_rate=0.1, batches=quadratics.batches(A4), population=3, beta=0.9)
    np.testing.assert_allclose(trajectory(made, A4, 3000)[1][-1], limit, atol=6e-9)


def test_what_is_refused():
    given = dict(learning_rate=0.1, batches=fl.Batches(4), population=7)
    loss_fn = lambda params, batch, key: batch["x"] * params  # noqa: E731
    for name in ("mime", "mimelite"):
        make = getattr(fl.algorithms, name)
        with pytest.raises(ValueError, match=f"{name}: beta must be in \\[0, 1\\), got 1"):
            make(loss_fn, beta=1, **given)
        with pytest.raises(ValueError, match=f"{name}: server_learning_rate must be positive and finite, got 0"):
            make(loss_fn, server_learning_rate=0, **given)
        with pytest.raises(ValueError, match=f"{name}: clients send their gradients beside the model's change.*for instance fedavg"):
            make(loss_fn, aggregator=fl.aggregators.dp_mean(1.0, 1.0, 4), **given)
