import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import fedjax_lite as fl
from fedjax_lite.models.recurrent import lstm


def arguments(batch=3, time=5, inputs=2, hidden=4, dtype=np.float64, seed=0, lanes=()):
    rng = np.random.default_rng(seed)
    shapes = (*lanes, inputs, 4 * hidden), (*lanes, hidden, 4 * hidden), (*lanes, 4 * hidden), (*lanes, batch, time, inputs)
    return [jnp.asarray(rng.normal(size=shape).astype(dtype)) for shape in shapes]


def by_the_equations(kernel, recurrent, bias, x):
    """Plain NumPy, gate by gate."""
    kernel, recurrent, bias, x = (np.asarray(a, np.float64) for a in (kernel, recurrent, bias, x))
    hidden = recurrent.shape[0]
    h, c, out = np.zeros((len(x), hidden)), np.zeros((len(x), hidden)), np.zeros((*x.shape[:2], hidden))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        out[:, t] = h
    return out


def naive(kernel, recurrent, bias, x):
    """The layer as one would write it, for automatic differentiation."""

    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ kernel + h @ recurrent + bias[None], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((len(x), len(recurrent)), x.dtype)
    return lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def objective(layer):
    """A scalar to which every output counts differently."""

    def value(*arguments):
        h = layer(*arguments)
        return jnp.sum(jnp.sin(jnp.arange(h.size, dtype=h.dtype).reshape(h.shape)) * h**2)

    return value


def gradients(layer):
    return jax.grad(objective(layer), argnums=(0, 1, 2, 3))


def assert_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


SIZES = [dict(), dict(batch=1), dict(time=1), dict(batch=1, time=1, inputs=1, hidden=1)]


@pytest.mark.parametrize("sizes", SIZES)
def test_lstm_is_its_equations(x64, sizes):
    values = arguments(**sizes)
    np.testing.assert_allclose(lstm(*values), by_the_equations(*values), rtol=1e-10, atol=1e-12)


def test_lstm_is_flax(x64):
    kernel, recurrent, bias, x = arguments()
    gates = {}
    for k, gate in enumerate("ifgo"):
        block = slice(4 * k, 4 * k + 4)
        gates |= {f"i{gate}": {"kernel": kernel[:, block]}, f"h{gate}": {"kernel": recurrent[:, block], "bias": bias[block]}}
    expected = nn.RNN(nn.OptimizedLSTMCell(4, param_dtype=jnp.float64)).apply({"params": {"cell": gates}}, x)
    np.testing.assert_allclose(lstm(kernel, recurrent, bias, x), expected, rtol=1e-10)


@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_are_those_of_automatic_differentiation(x64, sizes):
    values = arguments(**sizes)
    assert_close(gradients(lstm)(*values), gradients(naive)(*values), 1e-10)


def test_gradients_are_finite_differences(x64):
    values = arguments()
    directions = arguments(seed=1)
    value, step = objective(lstm), 1e-6
    up, down = (value(*(a + sign * step * d for a, d in zip(values, directions, strict=True))) for sign in (1, -1))
    slope = sum(jnp.vdot(g, d) for g, d in zip(gradients(lstm)(*values), directions, strict=True))
    np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=1e-7)


def test_gradient_of_one_argument_and_of_a_gradient(x64):
    values = arguments()
    assert_close(jax.grad(objective(lstm), argnums=1)(*values), gradients(naive)(*values)[1], 1e-10)

    def steepness(layer):
        return jax.grad(lambda recurrent: sum(jnp.sum(g**2) for g in gradients(layer)(values[0], recurrent, *values[2:])))

    assert_close(steepness(lstm)(values[1]), steepness(naive)(values[1]), 1e-9)


def test_large_gates_saturate(x64):
    values = [1e3 * a for a in arguments()]
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(lstm(*values), by_the_equations(*values), atol=1e-10)
    assert all(np.isfinite(g).all() for g in gradients(lstm)(*values))


def test_each_lane_has_its_own_weights(x64):
    values = arguments(lanes=(3,))
    expected = [gradients(naive)(*(a[k] for a in values)) for k in range(3)]
    assert_close(jax.vmap(gradients(lstm))(*values), jax.tree.map(lambda *g: jnp.stack(g), *expected), 1e-10)
    shared = jax.vmap(gradients(lstm), (None, None, None, 0))(*(a[0] for a in values[:3]), values[3])
    expected = [gradients(naive)(*(a[0] for a in values[:3]), values[3][k]) for k in range(3)]
    assert_close(shared, jax.tree.map(lambda *g: jnp.stack(g), *expected), 1e-10)


def test_training_in_a_loop_of_traced_length(x64):
    values = arguments()

    def train(layer, steps):
        def step(_, parameters):
            moved = gradients(layer)(*parameters, values[3])[:3]
            return [a - 0.01 * g for a, g in zip(parameters, moved, strict=True)]

        return lax.fori_loop(0, steps, step, values[:3])

    trained = jax.jit(lambda steps: train(lstm, steps))(jnp.int32(4))
    assert_close(trained, train(naive, 4), 1e-10)
    assert not np.allclose(trained[1], values[1], atol=1e-3)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.1)])
def test_narrow_dtypes(dtype, tolerance):
    values = [a.astype(dtype) for a in arguments(dtype=np.float32)]
    h = lstm(*values)
    assert h.dtype == dtype and {g.dtype for g in gradients(lstm)(*values)} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(h.astype(jnp.float32), by_the_equations(*values), atol=tolerance)


def test_mixed_dtypes_take_the_widest_and_gradients_keep_their_own():
    values = arguments(dtype=np.float32)
    values[1] = values[1].astype(jnp.bfloat16)
    assert lstm(*values).dtype == jnp.float32
    assert [g.dtype for g in gradients(lstm)(*values)] == [a.dtype for a in values]


@pytest.mark.parametrize("wrong", [(2, 15), (4, 12), (16, 1), (3, 5)])
def test_shapes_that_do_not_fit_are_refused(wrong):
    values = arguments(dtype=np.float32)
    which = {(2, 15): 0, (4, 12): 1, (16, 1): 2, (3, 5): 3}[wrong]
    values[which] = jnp.zeros(wrong)
    with pytest.raises(ValueError, match=re.escape(str(wrong))):
        lstm(*values)


def tokens(shape, vocabulary=11, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, vocabulary, shape), jnp.int32)


def test_char_lstm_is_what_its_name_says():
    model = fl.models.char_lstm(11, embedding=3, hidden=4, layers=2)
    params = model.init(jax.random.key(0), {"x": tokens(6)})
    h = np.asarray(params["embedding"])[np.asarray(tokens((2, 6)))]
    for layer in ("LSTM_0", "LSTM_1"):
        h = by_the_equations(*(params[layer][name] for name in ("kernel", "recurrent", "bias")), h)
    expected = h @ np.asarray(params["Dense_0"]["kernel"]) + np.asarray(params["Dense_0"]["bias"])
    np.testing.assert_allclose(model.apply(params, {"x": tokens((2, 6))}, None), expected, rtol=1e-4, atol=1e-6)


def test_char_lstm_has_as_many_parameters_as_the_paper_says():
    shapes = jax.eval_shape(lambda key: fl.models.char_lstm().init(key, {"x": tokens(80)}), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 720 + 4 * 256 * (8 + 256 + 1) + 4 * 256 * (512 + 1) + 257 * 90 == 820_522


def test_initial_weights():
    layer = fl.models.char_lstm(5, hidden=8).init(jax.random.key(0), {"x": tokens(3, 5)})["LSTM_1"]
    for gate in np.split(np.asarray(layer["recurrent"]), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(layer["bias"], np.repeat([0, 1, 0, 0], 8))


def test_the_gradient_of_the_embedding_adds_up_repeated_tokens(x64):
    model = fl.models.char_lstm(4, embedding=3, hidden=4, layers=1)
    params = jax.tree.map(lambda a: a.astype(jnp.float64), model.init(jax.random.key(0), {"x": tokens(6, 4)}))
    x, layer = tokens((2, 6), 4), params["LSTM_0"]

    def by_hand(table):
        one_hot = jax.nn.one_hot(x, 4, dtype=table.dtype)
        h = naive(layer["kernel"], layer["recurrent"], layer["bias"][None][0], one_hot @ table)
        return jnp.sum((h @ params["Dense_0"]["kernel"]) ** 2)

    gradient = jax.grad(lambda table: jnp.sum(model.apply(params | {"embedding": table}, {"x": x}, None) ** 2))(params["embedding"])
    np.testing.assert_allclose(gradient, jax.grad(by_hand)(params["embedding"]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outside", [11, 200, -1])
def test_a_token_outside_the_vocabulary_makes_the_rest_of_its_sequence_nan(outside):
    model = fl.models.char_lstm(11, hidden=4)
    params = model.init(jax.random.key(0), {"x": tokens(6)})
    x = tokens((2, 6)).at[0, 3].set(outside)
    logits = np.asarray(model.apply(params, {"x": x}, None))
    assert np.isnan(logits[0, 3:]).all() and np.isfinite(logits[0, :3]).all() and np.isfinite(logits[1]).all()


@pytest.mark.parametrize("x, said", [(jnp.zeros((2, 6)), r"float32\[6\]"), (jnp.zeros((2, 6, 1), jnp.int32), r"int32\[6, 1\]")])
def test_what_is_not_tokens_is_refused(x, said):
    model = fl.models.char_lstm(11, hidden=4)
    with pytest.raises(ValueError, match="integer tokens .*" + said + ".*encode"):
        model.init(jax.random.key(0), {"x": x[0]})


@pytest.mark.parametrize("size", ["vocabulary", "embedding", "hidden", "layers"])
def test_sizes_below_one_are_refused(size):
    with pytest.raises(ValueError, match=f"at least 1, got .*{size}=0"):
        fl.models.char_lstm(**{size: 0})


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
        batches=fl.Batches(size=2, epochs=2),
        population=data.population,
        engine=fl.packed(2),
    )
    params = model.init(jax.random.key(0), {"x": text[0, :-1]})
    _, history = jax.jit(lambda data, params, key: fl.simulate(algorithm, data, params, fl.sampling.uniform(3), rounds=25, key=key))(
        data, params, jax.random.key(1)
    )
    assert history["loss"][0] > 1 and history["loss"][-1] < 0.2
