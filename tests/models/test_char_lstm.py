"""The character network: its layers by their equations, its weights, tokens outside its vocabulary, and what clients learn with it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recurrence import by_the_equations, naive

import fedjax_lite as fl

MODEL = fl.models.char_lstm(11, embedding=3, hidden=4, layers=2)
APPLY = jax.jit(lambda params, x: MODEL.apply(params, {"x": x}, None))


def tokens(shape, vocabulary=11):
    return np.random.default_rng(0).integers(0, vocabulary, shape).astype(np.int32)


@pytest.fixture(scope="module")
def params():
    return jax.device_get(jax.jit(MODEL.init)(jax.random.key(0), {"x": tokens(6)}))


def test_char_lstm_is_what_its_name_says(params):
    h = params["embedding"][tokens((2, 6))]
    for layer in ("LSTM_0", "LSTM_1"):
        h = by_the_equations(*(params[layer][name] for name in ("kernel", "recurrent", "bias")), h)
    expected = h @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    np.testing.assert_allclose(APPLY(params, tokens((2, 6))), expected, rtol=1e-4, atol=1e-6)


def test_char_lstm_has_as_many_parameters_as_the_paper_says():
    shapes = jax.eval_shape(lambda key: fl.models.char_lstm().init(key, {"x": tokens(80)}), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 720 + 4 * 256 * (8 + 256 + 1) + 4 * 256 * (512 + 1) + 257 * 90 == 820_522


def test_initial_weights(params):
    for layer in (params["LSTM_0"], params["LSTM_1"]):
        gates = np.split(layer["recurrent"], 4, axis=1)
        for gate in gates:
            np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-5)
        assert not np.allclose(gates[0], gates[1])
        np.testing.assert_array_equal(layer["bias"], np.repeat([0, 1, 0, 0], 4))


def test_the_gradient_of_the_embedding_adds_up_repeated_tokens(params, x64):
    params, x = jax.tree.map(np.float64, params), tokens((2, 6), 4)

    def by_hand(table, params):
        h = jax.nn.one_hot(x, 11, dtype=table.dtype) @ table
        for layer in ("LSTM_0", "LSTM_1"):
            h = naive(*(params[layer][name] for name in ("kernel", "recurrent", "bias")), h)
        return jnp.sum((h @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None, None]) ** 2)

    def ours(table, params):
        return jnp.sum(MODEL.apply(params | {"embedding": table}, {"x": x}, None) ** 2)

    found, expected = jax.jit(lambda *given: (jax.grad(ours)(*given), jax.grad(by_hand)(*given)))(params["embedding"], params)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert (found[4:] == 0).all() and found[:4].all()


@pytest.mark.parametrize("outside", [11, 200, -1])
def test_a_token_outside_the_vocabulary_makes_the_rest_of_its_sequence_nan(params, outside):
    x = tokens((2, 6))
    x[0, 3] = outside
    logits = np.asarray(APPLY(params, x))
    assert np.isnan(logits[0, 3:]).all() and np.isfinite(logits[0, :3]).all() and np.isfinite(logits[1]).all()


@pytest.mark.parametrize("x, said", [(np.zeros((2, 6), np.float32), r"float32\[6\]"), (np.zeros((2, 6, 1), np.int32), r"int32\[6, 1\]")])
def test_what_is_not_tokens_is_refused(x, said):
    with pytest.raises(ValueError, match="integer tokens .*" + said + ".*encode"):
        jax.eval_shape(MODEL.init, jax.random.key(0), {"x": x[0]})


@pytest.mark.parametrize("size", ["vocabulary", "embedding", "hidden", "layers"])
def test_sizes_below_one_are_refused(size):
    with pytest.raises(ValueError, match=f"char_lstm: {size} must be a whole number of at least 1, got 0"):
        fl.models.char_lstm(**{size: 0})


@pytest.mark.deep
def test_clients_train_it_to_predict_the_next_character():
    """Every client counts up in a circle: with lanes of its own weights the network learns it."""
    model = fl.models.char_lstm(5, embedding=4, hidden=8, layers=1)
    start = np.random.default_rng(0).integers(0, 5, (12, 1))
    text = ((start + np.arange(9)) % 5).astype(np.int32)
    data = fl.FederatedData.from_clients([{"x": text[k : k + 4, :-1], "y": text[k : k + 4, 1:]} for k in (0, 4, 8)])

    def loss_fn(params, batch, key):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, batch, key), batch["y"]).mean(axis=1)

    algorithm = fl.federate(
        fl.sgd_work(loss_fn, optax.sgd(0.5)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(size=2, epochs=2, shuffle=False),
        population=data.population,
        engine=fl.packed(2),
    )

    @jax.jit
    def losses(data, key):
        params = model.init(key, {"x": text[0, :-1]})
        return fl.simulate(algorithm, data, params, fl.sampling.uniform(3), rounds=40, key=key)[1]["loss"]

    found = losses(data, jax.random.key(1))
    assert found[0] > 1 and found[-1] < 0.2
