"""Rules over the paths of leaves, and models that are split by them."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import fedjax_lite as fl
from fedjax_lite import leaves

MODEL = {
    "Conv_0": {"kernel": 0.0},
    "BatchNorm_0": {"scale": 0.0, "bias": 0.0},
    "norm1": 0.0,
    "bn1": 0.0,
    "bn10": 0.0,
    "abnormal": 0.0,
    "Dense_0": [0.0],
}


def found(rule, params=MODEL, **more):
    mask = jax.tree.leaves(leaves.chosen("x: rule", rule, params, **more))
    return [path for path, on in zip(leaves.paths_of(params), mask, strict=True) if on]


def test_rules_choose_whole_paths():
    assert found("Dense_0/.*") == ["Dense_0/0"] and found("Dense_0/0|norm1") == ["Dense_0/0", "norm1"]
    assert found("Dense", some=False) == []  # no part of a path
    assert found("bn1") == ["bn1"]  # and not bn10
    assert found(lambda path, leaf: path.endswith("kernel")) == ["Conv_0/kernel"]
    assert len(found("all", some=False)) == 8 and found("none", some=False) == []
    assert found(leaves.besides("Dense_0/.*|.*orm.*|bn.*")) == ["Conv_0/kernel"]


def test_norm_layers_are_known_by_a_part_of_their_path():
    names = ["BatchNorm_0/bias", "BatchNorm_0/scale", "abnormal", "bn1", "bn10", "norm1"]
    assert found("norm layers") == sorted(names, key=str) and found(
        "norm layers", {"block": {"LayerNorm_3": {"scale": 0.0}}, "x": 0.0}
    ) == ["block/LayerNorm_3/scale"]


@pytest.mark.parametrize(
    ("rule", "error", "said"),
    [
        ("Dense_1/.*", ValueError, "x: rule='Dense_1/.*' chooses no leaf, and some are needed; the model's leaves are BatchNorm_0/bias, "),
        (".*", ValueError, "x: rule='.*' chooses every leaf"),
        (
            "(",
            ValueError,
            "x: rule='(' is no regular expression (missing ), unterminated subpattern at position 0) and none of 'all', 'none'",
        ),
        (3, TypeError, "x: rule must be a regular expression, a name or a function (path, leaf) -> bool, got 3"),
    ],
)
def test_rules_that_are_refused(rule, error, said):
    with pytest.raises(error, match=re.escape(said)):
        found(rule)


class Two(nn.Module):
    """A network whose last layer is the first by name."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="a_head")(nn.relu(nn.Dense(4, name="body")(x)))


def test_the_last_layer_is_the_models_head():
    example = {"x": jnp.zeros(5)}
    model = fl.models.from_linen(Two(), head=("a_head", nn.Dense(3)))
    params = model.init(jax.random.key(0), example)
    assert found(leaves.last_layer(model, example), params) == ["a_head/bias", "a_head/kernel"]
    jitted = model._replace(head=jax.jit(model.head))
    assert found(leaves.last_layer(jitted, example), params) == ["a_head/bias", "a_head/kernel"]
    with pytest.raises(ValueError, match="last_layer: the model has no features apart from its head"):
        leaves.last_layer(fl.models.from_linen(Two()), example)


def test_split_and_merge():
    mask = leaves.chosen("x", "Conv_0/.*|bn1", MODEL)
    mine, others = leaves.split(mask, MODEL)
    assert len(jax.tree.leaves(mine)) == 2 and len(jax.tree.leaves(others)) == 6 and leaves.merge(mine, others) == MODEL
    assert leaves.merge(others, mine) == MODEL
