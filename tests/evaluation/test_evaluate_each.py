"""Each client's own model on its own examples."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss

import fedjax_lite as fl

MODELS = np.random.default_rng(3).normal(size=(len(SIZES) + 1, FEATURES, CLASSES))


@pytest.fixture
def data(x64):
    return softmax_data((*SIZES[:3], 0, *SIZES[3:]), empty=True)


def losses_by_hand(data):
    for k, (start, size) in enumerate(zip(np.asarray(data.start), np.asarray(data.size), strict=True)):
        x, y = (np.asarray(data.examples[name])[start : start + size] for name in ("x", "y"))
        logits = x @ MODELS[k]
        yield np.log(np.exp(logits).sum(-1)) - logits[np.arange(size), y]


@pytest.mark.parametrize(("batch", "lanes"), [(1, 3), (5, 16), (256, 1)])
def test_each_is_the_mean_over_its_clients_examples(batch, lanes, data):
    found = jax.jit(lambda models, data: fl.evaluate_each(softmax_loss, models, data, batch=batch, lanes=lanes))(jnp.asarray(MODELS), data)
    expected = list(losses_by_hand(data))
    np.testing.assert_allclose(found["loss"].total, [x.sum() for x in expected], rtol=1e-12)
    assert found["loss"].count.tolist() == found["accuracy"].count.tolist() == [len(x) for x in expected]
    assert fl.summarize(found)["test_loss"] == pytest.approx(np.concatenate(expected).mean(), rel=1e-12)


@pytest.mark.deep
def test_of_an_algorithm_whose_models_stay(data):
    model = fl.models.linear(CLASSES)
    algorithm = fl.algorithms.fd(model, optax.sgd(0.1), CLASSES, batches=fl.Batches(4), population=len(SIZES))
    state = algorithm.init(model.init(jax.random.key(0), softmax_data().example), jax.random.key(0))
    found = fl.evaluate_each(fl.models.supervised(model), algorithm.models(state), softmax_data())
    assert found["loss"].count.tolist() == list(SIZES)


def test_what_is_refused(data):
    with pytest.raises(ValueError, match="evaluate_each: models is None, since this algorithm's clients have no models of their own"):
        fl.evaluate_each(softmax_loss, None, data)
    with pytest.raises(ValueError, match="evaluate_each: 3 models for 8 clients: give one for each"):
        fl.evaluate_each(softmax_loss, jnp.asarray(MODELS[:3]), data)
    for name in ("batch", "lanes"):
        with pytest.raises(ValueError, match=f"evaluate_each: {name} must be an int of at least 1, got 0"):
            inspect.unwrap(fl.evaluate_each)(softmax_loss, jnp.asarray(MODELS), data, **{name: 0})
