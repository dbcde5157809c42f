"""FedALA against the scalar of the reference table, a NumPy loop over ragged clients, and FedAvg."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ragged
from problems import SIZES, softmax_loss
from ragged import BATCH, LOST, RATE

import fedjax_lite as fl
from fedjax_lite.algorithms.personal.fedala import _in_a_row

pytestmark = pytest.mark.usefixtures("x64")
WEIGHT_RATE, PASSES, SERVER_RATE = 3.0, 2, 0.5


def squares(params, batch, key):
    return (params - batch["x"]) ** 2 / 2


FEWER = [pytest.param(*case, marks=pytest.mark.deep) for case in ((0.1, 1, 0.7), (1.0, 2, 1.0), (1.0, 3, 0.0))]


@pytest.mark.parametrize(("rate", "passes", "weight"), [(0.1, 4, 0.3472), *FEWER])
def test_weights_are_those_of_the_table(rate, passes, weight):
    """A client's own model is 1, the global one 3 and its example 1.5; the steps that follow do not move it."""
    data = fl.FederatedData.from_clients([{"x": np.array([1.5])}])
    algorithm = fl.algorithms.fedala(
        squares, optax.sgd(0.0), batches=fl.Batches(None), population=1, weight_rate=rate, passes=passes, share=1.0
    )
    state = algorithm.init(jnp.array(3.0), jax.random.key(0))
    state = state._replace(own=state.own._replace(model=jnp.array([1.0])))
    cohort = fl.sampling.cohort(jax.random.key(0), data.size, jnp.arange(1))
    state, _ = jax.jit(lambda state, data: algorithm.round(state, data, cohort))(state, data)
    np.testing.assert_allclose(state.own.weights, [weight], atol=1e-12)
    np.testing.assert_allclose(algorithm.models(state), [1 + 2 * weight], atol=1e-12)


def by_hand(x):
    """The global model, and the clients' models and weights, after each round."""
    v, w = (np.stack([start] * len(SIZES)) for start in (x, np.ones_like(x)))
    for clients in ragged.arrived():
        before = x
        for k, taken in clients.items():
            features, labels = ragged.examples(k)
            y = v[k] + (x - v[k]) * w[k]
            for first in list(range(0, SIZES[k], BATCH)) * PASSES:
                rows = slice(first, first + BATCH)
                w[k] = np.clip(w[k] - WEIGHT_RATE * ragged.gradient(y, (features[rows], labels[rows])) * (x - v[k]), 0, 1)
                y = v[k] + (x - v[k]) * w[k]
            for batch in taken:
                y = y - RATE * ragged.gradient(y, batch)
            v[k] = y
        sizes = np.array([SIZES[k] for k in clients])
        x = x + SERVER_RATE * np.average([v[k] - before for k in clients], axis=0, weights=sizes)
        yield x, v.copy(), w.copy()


def test_ragged_rounds_equal_the_numpy_loop():
    """Weights are learned over all of a client's examples, where it is cut short too; what is not finite is not kept."""
    more = dict(weight_rate=WEIGHT_RATE, passes=PASSES, share=1.0, server_learning_rate=SERVER_RATE)
    algorithm, states, told = ragged.run(fl.algorithms.fedala, optax.sgd(RATE), **more)
    for state, (x, v, w) in zip(states, by_hand(ragged.start()), strict=True):
        np.testing.assert_allclose(algorithm.params(state), x, atol=1e-12)
        np.testing.assert_allclose(algorithm.models(state), v, atol=1e-12)
        np.testing.assert_allclose(state.own.weights, w, atol=1e-12)
    assert 0 < np.mean(w[4] < 1) and 0 < np.min(w[4]) < 0.99 and (w[LOST] == 1).all()
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1]


def test_leaves_below_the_top_take_the_global_model():
    """Nobody moves in training: client 0's leaves are the mixture where it learned weights, and the global model's elsewhere."""
    data = fl.FederatedData.from_clients([{"x": np.array([0.0, 0.0])}])
    loss_fn = lambda params, batch, key: squares(params["body"] + params["head"], batch, key)  # noqa: E731
    algorithm = fl.algorithms.fedala(loss_fn, optax.sgd(0.0), batches=fl.Batches(None), population=1, top="head", weight_rate=0.1)
    state = algorithm.init({"body": jnp.array(2.0), "head": jnp.array(1.0)}, jax.random.key(0))
    assert state.own.weights == {"body": None, "head": 1.0}
    state = state._replace(own=state.own._replace(model={"body": jnp.array([-7.0]), "head": jnp.array([-1.0])}))
    cohort = fl.sampling.cohort(jax.random.key(0), data.size, jnp.arange(1))
    state, _ = jax.jit(lambda state, data: algorithm.round(state, data, cohort))(state, data)
    weight = 1 - 0.1 * 3.0 * 2.0
    np.testing.assert_allclose(algorithm.models(state)["body"], [2.0])
    np.testing.assert_allclose(algorithm.models(state)["head"], [-1 + 2 * weight])


@pytest.mark.deep
def test_weights_are_learned_on_as_many_examples_in_a_row():
    client = fl.Client(jnp.int32(0), jax.random.key(0), jnp.int32(10), jnp.int32(1), jnp.ones(()))
    rows = jnp.arange(12)  # the last two fill the batch up

    def marked(key, share=0.75):
        batch = fl.Batch((), rows < 10, 0, 0, 0, client._replace(key=key), jnp.minimum(rows, 9))
        return batch.mask & _in_a_row(batch, share)

    found = np.asarray(jax.vmap(marked)(jax.random.split(jax.random.key(1), 99)))
    firsts = {int(np.argmax(row)) for row in found}
    assert firsts == {0, 1, 2} and (found.sum(1) == 8).all()
    assert all(row[first : first + 8].all() for row, first in zip(found, found.argmax(1), strict=True))
    assert marked(jax.random.key(0), 1.0).sum() == 10


@pytest.mark.deep
@pytest.mark.parametrize(("top", "rounds"), [("none", 3), ("all", 1)])
def test_without_weights_and_in_a_first_round_it_is_fedavg(top, rounds):
    _, found, _ = ragged.run(fl.algorithms.fedala, optax.sgd(RATE), top=top)
    _, expected, _ = ragged.run(fl.algorithms.fedavg, optax.sgd(RATE))
    for state, like in list(zip(found, expected, strict=True))[:rounds]:
        np.testing.assert_allclose(state.server.params, like.server.params, rtol=1e-12)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(weight_rate=0.0), "fedala: weight_rate must be positive and finite, got 0.0"),
        (dict(passes=0), "fedala: passes must be a whole number of at least 1, got 0"),
        (dict(share=0), r"fedala: share must be in \(0, 1\], got 0"),
        (dict(aggregator=fl.aggregators.dp_mean(1.0, 1.0, 4)), "fedala: clients keep their last local models.*for instance fedavg"),
        (dict(server_learning_rate=0), "fedala: server_learning_rate must be positive"),
    ],
)
def test_what_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        fl.algorithms.fedala(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=7, **more)
