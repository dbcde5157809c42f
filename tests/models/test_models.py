import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl


def test_mlp_is_what_its_name_says():
    model = fl.models.mlp((5, 4), classes=3)
    params = jax.device_get(model.init(jax.random.key(0), {"x": jnp.zeros((2, 3))}))
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    hidden = x.reshape(7, 6)
    for layer in ("Dense_0", "Dense_1"):
        hidden = np.maximum(hidden @ params[layer]["kernel"] + params[layer]["bias"], 0)
    expected = hidden @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    np.testing.assert_allclose(model.apply(params, {"x": x}, None), expected, rtol=1e-5, atol=1e-6)


def test_2nn_has_as_many_parameters_as_the_paper_says():
    params = fl.models.mlp((200, 200), classes=10).init(jax.random.key(0), {"x": jnp.zeros((28, 28, 1))})
    assert sum(x.size for x in jax.tree.leaves(params)) == 199_210


def test_softmax_loss_and_accuracy():
    logits = np.random.default_rng(0).normal(size=(6, 3))
    labels = np.array([0, 1, 2, 2, 1, 0])
    loss_fn = fl.models.supervised(fl.models.Model(None, lambda params, batch, key: batch["x"]))
    losses, metrics = loss_fn(None, {"x": jnp.asarray(logits), "y": jnp.asarray(labels)}, None)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(metrics["accuracy"], logits.argmax(1) == labels)


def given_logits(**options):
    return fl.models.supervised(fl.models.Model(None, lambda params, batch, key: batch["x"]), **options)


def test_the_loss_of_a_sequence_is_the_mean_over_its_counted_positions():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4, 5)), np.array([[1, 2, 0, 0], [4, 3, 2, 1], [0, 0, 0, 0]])
    each = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    batch = {"x": jnp.asarray(logits), "y": jnp.asarray(labels)}
    np.testing.assert_allclose(given_logits()(None, batch, None)[0], each.mean(1), rtol=1e-5)
    losses, metrics = given_logits(ignore=0)(None, batch, None)
    np.testing.assert_allclose(losses, [each[0, :2].mean(), each[1].mean(), 0], rtol=1e-5)
    hits = logits.argmax(-1) == labels
    np.testing.assert_allclose(metrics["accuracy"], [hits[0, :2].mean(), hits[1].mean(), 0])


def test_the_gradient_of_the_loss_is_softmax_minus_the_label():
    logits, labels = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32), jnp.array([0, 1, 2, 2, 1, 0])
    gradient = jax.grad(lambda x: jnp.sum(given_logits()(None, {"x": x, "y": labels}, None)[0]))(logits)
    np.testing.assert_allclose(gradient, np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels], atol=1e-6)


def test_an_impossible_class_does_not_disturb_the_others():
    """A logit of -inf (a masked class) that is not the label's costs nothing."""
    batch = {"x": jnp.array([[0.0, -jnp.inf, 0.0]]), "y": jnp.array([2])}
    np.testing.assert_allclose(given_logits()(None, batch, None)[0], np.log(2), rtol=1e-6)


def test_bad_arguments_of_a_loss():
    with pytest.raises(ValueError, match='ignore=0 is a label, so it needs loss="softmax"'):
        given_logits(loss="squared", ignore=0)
    with pytest.raises(ValueError, match="logits .2, 3. for labels .4,.: each label needs its row of logits"):
        given_logits()(None, {"x": jnp.zeros((2, 3)), "y": jnp.zeros(4, jnp.int32)}, None)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2)])
def test_squared_loss(shape):
    y = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = fl.models.linear(outputs=y[0].size)
    loss_fn = fl.models.supervised(model, "squared")
    params = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
    losses = loss_fn(params, {"x": jnp.zeros((5, 3)), "y": jnp.asarray(y)}, None)  # a linear model starts at zero
    np.testing.assert_allclose(losses, 0.5 * (y.reshape(5, -1) ** 2).sum(1), rtol=1e-6)


def test_dropout_is_on_in_training_and_other_for_each_client():
    class Dropping(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            return nn.Dropout(0.5, deterministic=not train)(nn.Dense(8, bias_init=nn.initializers.ones)(x))

    model = fl.models.from_linen(Dropping())
    batch = {"x": jnp.zeros((2, 3))}
    params = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
    assert (np.asarray(model.apply(params, batch, None)) == 1).all()
    masks = [np.asarray(model.apply(params, batch, jax.random.key(i))) for i in (1, 2)]
    assert set(masks[0].ravel()) == {0, 2} and (masks[0] != masks[1]).any()


def test_batch_statistics_are_refused():
    model = fl.models.from_linen(nn.BatchNorm(use_running_average=False))
    with pytest.raises(ValueError, match="batch_stats"):
        model.init(jax.random.key(0), {"x": jnp.zeros(3)})


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 1.*hidden=\\(0,\\)"):
        fl.models.mlp((0,), classes=3)
    with pytest.raises(ValueError, match="outputs must be at least 1"):
        fl.models.linear(0)
    with pytest.raises(ValueError, match="'hinge'"):
        fl.models.supervised(fl.models.linear(), "hinge")
    wrong = fl.models.supervised(fl.models.linear(outputs=2), "squared")
    with pytest.raises(ValueError, match="2 outputs for targets"):
        wrong({"Dense_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, {"x": jnp.ones((4, 3)), "y": jnp.ones((4, 3))}, None)


def test_any_pair_of_functions_is_a_model():
    model = fl.models.Model(lambda key, example: jnp.zeros(example["x"].shape), lambda params, batch, key: batch["x"] @ params[:, None])
    data = fl.FederatedData.from_clients([{"x": np.eye(2), "y": np.array([1.0, 2.0])}] * 2)
    loss_fn = fl.models.supervised(model, "squared")
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.5), batches=fl.Batches(2, steps=1), population=2)
    params = model.init(jax.random.key(0), data.example)
    state, _ = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=60, key=jax.random.key(0))
    np.testing.assert_allclose(algorithm.params(state), [1, 2], atol=1e-4)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_gives_nan(label):
    loss_fn = fl.models.supervised(fl.models.Model(None, lambda params, batch, key: batch["x"]))
    losses, _ = loss_fn(None, {"x": jnp.zeros((2, 3)), "y": jnp.array([label, 0])}, None)
    assert np.isnan(losses).tolist() == [True, False]
