"""Models tell how they were made, in words that JSON has, and only as long as they are what was made."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from fedjax_lite import models
from fedjax_lite.models.made import made_of, remembering
from fedjax_lite.models.reading import read_by
from fedjax_lite.runner.architecture import made_again

X = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
IMAGE = {"x": X[0], "y": np.int32(1)}


def same(a, b):
    params = a.init(jax.random.key(0), IMAGE)
    again = b.init(jax.random.key(0), IMAGE)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    np.testing.assert_array_equal(a.apply(params, {"x": X}, None), b.apply(again, {"x": X}, None))


@pytest.mark.parametrize(
    "model",
    [
        models.mlp((4,), classes=3, norm="batch"),
        models.linear(2, bias=False),
        models.normalised(models.augmented(models.logistic(np.int64(3)), flip=0.0), [0.1, 0.2, 0.3], 0.5),
    ],
)
def test_a_model_is_made_again_of_its_words(model):
    same(model, made_again(json.loads(json.dumps(made_of(model)))))


def test_arguments_have_their_defaults_by_name():
    wanted = {"hidden": [4], "classes": 10, "norm": "none", "statistics": "averaged"}
    assert made_of(models.mlp([4])) == {"name": "mlp", "arguments": wanted}
    inside = made_of(models.augmented(models.logistic(), crop=2))["arguments"]["inner"]
    assert inside == {"model": {"name": "logistic", "arguments": {"classes": 10}}}


def test_nobody_knows_how_these_were_made():
    model = models.mlp((4,))
    for other in (
        models.from_linen(nn.Dense(3)),
        models.from_functions(lambda key, example: 0.0, lambda params, batch: batch),
        models.Model(model.init, lambda params, batch, key=None: batch["x"]),
        model._replace(init=lambda key, example: model.init(key, example)),
        model._replace(apply=print),
        models.normalised(models.from_linen(nn.Dense(3)), 0.0, 1.0),
    ):
        assert made_of(other) is None


def test_models_that_share_their_functions_are_told_apart():
    """Of two models with one apply, the one made last is known; of the other nobody says that it is like this one."""

    def apply(params, batch, key=None):
        return batch["x"] @ params

    make = remembering(lambda width: models.Model(lambda key, example: np.zeros((8, width)), apply), "wide")
    first, second = make(3), make(4)
    assert made_of(first) is None and made_of(second) == {"name": "wide", "arguments": {"width": 4}}


def test_what_json_does_not_have_is_no_argument():
    for value in (float("inf"), max, np.zeros(3), {"a": max}):
        assert made_of(remembering(lambda value: models.Model(max, lambda *_: 0), "mine")(value)) is None
    many = remembering(lambda *widths, **more: models.Model(lambda key, example: 0, lambda *_: 0), "mine")
    assert made_of(many(3)) is None and made_of(many(a=3)) == {"name": "mine", "arguments": {"a": 3}}


def test_a_prediction_reads_its_inputs_and_not_its_labels():
    model = models.mlp((4,), norm="batch")
    params = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    assert read_by(model, params, IMAGE).keys() == {"x"}
    two = models.Model(lambda key, example: 0.0, lambda params, batch, key: params * (batch["a"] + batch["b"]["c"]))
    assert read_by(two, 1.0, {"a": 1.0, "b": {"c": 2.0}, "y": 0}) == {"a": 1.0, "b": {"c": 2.0}}
    assert read_by(models.Model(max, lambda params, batch, key: batch), (), 3.0) == 3.0


def test_what_cannot_be_made_again_says_why():
    with pytest.raises(ValueError, match="fl.models has no 'perceptron': it is of another version, 9.0"):
        made_again({"name": "perceptron", "arguments": {}, "fedjax_lite": "9.0"})
    with pytest.raises(ValueError, match="made of functions or modules, which no file holds"):
        made_again({"name": None, "arguments": None})
