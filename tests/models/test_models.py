"""The dense models and losses against NumPy, dropout, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import simulate

import fedjax_lite as fl


def test_mlp_is_what_its_name_says():
    model = fl.models.mlp((5, 4), classes=3)
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0), {"x": np.zeros((2, 3), np.float32)}))
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    hidden = x.reshape(7, 6)
    for layer in ("Dense_0", "Dense_1"):
        hidden = np.maximum(hidden @ params[layer]["kernel"] + params[layer]["bias"], 0)
    expected = hidden @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    found = jax.jit(lambda params, x: model.apply(params, {"x": x}, None))(params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_2nn_has_as_many_parameters_as_the_paper_says():
    params = jax.eval_shape(fl.models.mlp((200, 200), classes=10).init, jax.random.key(0), {"x": np.zeros((28, 28, 1))})
    assert sum(x.size for x in jax.tree.leaves(params)) == 199_210


def test_softmax_loss_and_accuracy():
    logits = np.random.default_rng(0).normal(size=(6, 3))
    labels = np.array([0, 1, 2, 2, 1, 0])
    losses, metrics = given_logits()(logits, labels)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(metrics["accuracy"], logits.argmax(1) == labels)


@functools.cache
def given_logits(**options):
    """The loss of logits and labels, compiled."""
    loss_fn = fl.models.supervised(fl.models.Model(None, lambda params, batch, key: batch["x"]), **options)
    return jax.jit(lambda logits, labels: loss_fn(None, {"x": logits, "y": labels}, None))


def test_the_loss_of_a_sequence_is_the_mean_over_its_counted_positions():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4, 5)), np.array([[1, 2, 0, 0], [4, 3, 2, 1], [0, 0, 0, 0]])
    each = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(given_logits()(logits, labels)[0], each.mean(1), rtol=1e-5)
    losses, metrics = given_logits(ignore=0)(logits, labels)
    np.testing.assert_allclose(losses.total, [each[0, :2].mean(), each[1].mean(), 0], rtol=1e-5)
    hits = logits.argmax(-1) == labels
    np.testing.assert_allclose(metrics["accuracy"].total, [hits[0, :2].mean(), hits[1].mean(), 0])
    assert losses.count.tolist() == metrics["accuracy"].count.tolist() == [1, 1, 0]  # an example of padding alone counts nowhere


def test_the_gradient_of_the_loss_is_softmax_minus_the_label():
    logits, labels = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 2, 1, 0])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(given_logits()(x, labels)[0])))(logits)
    np.testing.assert_allclose(gradient, np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels], atol=1e-6)


def test_an_impossible_class_does_not_disturb_the_others():
    """A logit of -inf (a masked class) that is not the label's costs nothing."""
    losses = given_logits()(np.array([[0.0, -np.inf, 0.0]]), np.array([2]))[0]
    np.testing.assert_allclose(losses, np.log(2), rtol=1e-6)


def test_bad_arguments_of_a_loss():
    with pytest.raises(ValueError, match='ignore=0 is a label, so it needs loss="softmax"'):
        given_logits(loss="squared", ignore=0)
    with pytest.raises(ValueError, match="logits .2, 3. for labels .4,.: each label needs its row of logits"):
        given_logits()(np.zeros((2, 3)), np.zeros(4, np.int32))


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2)])
def test_squared_loss(shape):
    y = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = fl.models.linear(outputs=y[0].size)
    loss_fn = fl.models.supervised(model, "squared")

    @jax.jit
    def run(y):  # a linear model starts at zero
        return loss_fn(model.init(jax.random.key(0), {"x": jnp.zeros(3)}), {"x": jnp.ones((5, 3)), "y": y}, None)

    losses = run(y)
    np.testing.assert_allclose(losses, 0.5 * (y.reshape(5, -1) ** 2).sum(1), rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="mlp: hidden must be a whole number of at least 1, got 0"):
        fl.models.mlp((0,), classes=3)
    with pytest.raises(ValueError, match='mlp: norm must be "none", "batch" or "layer", got \'bn\''):
        fl.models.mlp((2,), norm="bn")
    with pytest.raises(ValueError, match="linear: outputs must be a whole number of at least 1, got 0"):
        fl.models.linear(0)
    with pytest.raises(ValueError, match="'hinge'"):
        fl.models.supervised(fl.models.linear(), "hinge")
    wrong = fl.models.supervised(fl.models.linear(outputs=2), "squared")
    with pytest.raises(ValueError, match="2 outputs for targets"):
        params = {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}}
        jax.eval_shape(lambda params: wrong(params, {"x": jnp.ones((4, 3)), "y": jnp.ones((4, 3))}, None), params)


def test_any_pair_of_functions_is_a_model():
    model = fl.models.Model(lambda key, example: jnp.zeros(example["x"].shape), lambda params, batch, key: batch["x"] @ params[:, None])
    data = fl.FederatedData.from_clients([{"x": np.eye(2), "y": np.array([1.0, 2.0])}] * 2)
    loss_fn = fl.models.supervised(model, "squared")
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.5), batches=fl.Batches(2, steps=1, shuffle=False), population=2)
    state, _ = simulate(algorithm, data, model.init(None, data.example), fl.sampling.everyone(), 60, jax.random.key(0))
    np.testing.assert_allclose(algorithm.params(state), [1, 2], atol=1e-4)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_gives_nan(label):
    losses, _ = given_logits()(np.zeros((2, 3)), np.array([label, 0]))
    assert np.isnan(losses).tolist() == [True, False]
