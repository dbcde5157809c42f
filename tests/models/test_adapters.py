"""A flax module as a model: which of its arguments says that it trains, which the mask, and what is refused."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fedjax_lite as fl
from fedjax_lite.models import from_linen, supervised


def test_dropout_is_on_in_training_and_other_for_each_client():
    class Dropping(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            return nn.Dropout(0.5, deterministic=not train)(nn.Dense(8, bias_init=nn.initializers.ones)(x))

    model = fl.models.from_linen(Dropping())

    @jax.jit
    def run(key):
        params = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
        return [model.apply(params, {"x": jnp.zeros((2, 3))}, key) for key in (None, key)]

    assert (run(jax.random.key(0))[0] == 1).all()
    masks = [np.asarray(run(jax.random.key(i))[1]) for i in (1, 2)]
    assert set(masks[0].ravel()) == {0, 2} and (masks[0] != masks[1]).any()


def module_with(flag, rate=0.5, named=None):
    """A module of one dropout, whose call has this flag."""

    def call(self, x, **given):
        off = given[flag] if flag == "deterministic" else not given[flag]
        return nn.Dropout(rate, deterministic=off)(nn.Dense(8, bias_init=nn.initializers.ones)(x))

    scope = {"call": nn.compact(call)}
    exec(f"def __call__(self, x, {flag}={flag == 'deterministic'}):\n    return self.call(x, {flag}={flag})", scope)
    return type("Net", (nn.Module,), {"call": scope["call"], "__call__": scope["__call__"]})()


def said(model, key):
    batch = {"x": jnp.zeros((2, 3))}
    return model.apply(model.init(jax.random.key(0), {"x": jnp.zeros(3)}), batch, key)


@pytest.mark.parametrize("flag", ["train", "training", "is_training", "deterministic"])
def test_a_flag_by_each_usual_name_turns_dropout_on_in_training_alone(flag):
    model = from_linen(module_with(flag))
    assert (said(model, None) == 1).all() and set(np.asarray(said(model, jax.random.key(1))).ravel().tolist()) == {0, 2}


def test_a_flag_of_another_name_is_named_or_refused():
    module = module_with("learning")
    with pytest.raises(ValueError, match="Dropout_0 of Net drops out at 0.5, and is off in training: its call has no flag among train"):
        said(from_linen(module), jax.random.key(1))
    assert set(np.asarray(said(from_linen(module, flag="learning"), jax.random.key(1))).ravel().tolist()) == {0, 2}
    assert (said(from_linen(module_with("learning", rate=0.0)), jax.random.key(1)) == 1).all()
    with pytest.raises(ValueError, match="from_linen: flag='trains' is no argument of Net, whose call takes x, learning"):
        from_linen(module, flag="trains")


def test_a_dropout_that_is_always_on_and_one_within_attention_are_refused():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.25, deterministic=False)(x)

    with pytest.raises(ValueError, match="Dropout_0 of Noisy drops out at 0.25, and is on in evaluation"):
        from_linen(Noisy()).init(jax.random.key(0), {"x": jnp.zeros(3)})

    class Attending(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.MultiHeadDotProductAttention(1, dropout_rate=0.1, deterministic=True)(x)

    model, example = from_linen(Attending()), {"x": np.zeros((4, 2), np.float32)}
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    with pytest.raises(ValueError, match="MultiHeadDotProductAttention_0 of Attending drops out at 0.1, and is off in training"):
        jax.eval_shape(model.apply, params, {"x": np.zeros((1, 4, 2), np.float32)}, jax.random.key(0))


def test_a_module_of_another_library_is_refused_in_one_line():
    for module in (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nn.Dense, lambda x: x):
        with pytest.raises(ValueError, match="from_linen: module must be an instance of a flax.linen.Module, got .*: .* write") as found:
            unchecked(module)
        assert "\n" not in str(found.value)


def unchecked(module):
    """Without the tests' check of types, which users have not."""
    return inspect.unwrap(from_linen)(module)


def test_a_module_may_ask_for_the_mask():
    class Centred(nn.Module):
        @nn.compact
        def __call__(self, x, real):
            return x - jnp.sum(jnp.where(real[:, None], x, 0), 0, keepdims=True) / jnp.sum(real)

    model = from_linen(Centred(), mask="real")
    loss_fn, batch = supervised(model, "squared"), {"x": jnp.array([[1.0], [2.0], [9.0], [9.0]]), "y": jnp.zeros(4)}
    params = model.init(jax.random.key(0), {"x": jnp.zeros(1)})
    expected = 0.5 * (np.array([1, 2, 9, 9]) - 4.0) ** 2  # 4 is the mean of the three that are real
    np.testing.assert_allclose(loss_fn(params, batch, None, mask=jnp.array([True, True, True, False])), expected)
    np.testing.assert_allclose(loss_fn(params, batch, None), 0.5 * (np.array([1, 2, 9, 9]) - 5.25) ** 2)  # all are, without one
    with pytest.raises(ValueError, match="from_linen: mask='mask' is no argument of Centred, whose call takes x, real"):
        from_linen(Centred(), mask="mask")


def test_examples_without_the_leaf_that_is_wanted_say_which_they_have():
    loss_fn, batch = supervised(fl.models.linear(), "squared", target="label"), {"x": jnp.zeros((2, 3)), "y": jnp.zeros(2)}
    with pytest.raises(ValueError, match="supervised: target='label' is no leaf of the examples: one has the leaves x, y"):
        loss_fn((), batch, None)
    with pytest.raises(ValueError, match="from_linen: input='image' is no leaf of the examples: one has the leaves x, y"):
        from_linen(nn.Dense(1), input="image").init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="from_linen: input='x' is no leaf of the examples: one has no leaves by name"):
        from_linen(nn.Dense(1)).init(jax.random.key(0), jnp.zeros(3))


@pytest.mark.parametrize(
    ("model", "shape", "width"),
    [
        (fl.models.mlp((), classes=3), (4,), 4),
        (fl.models.mlp((5, 2), classes=3), (4,), 2),
        pytest.param(fl.models.emnist_cnn(3), (28, 28, 1), 128, marks=pytest.mark.deep),
    ],
    ids=["softmax", "mlp", "cnn"],
)
def test_a_model_in_two_parts_is_its_head_behind_its_features(model, shape, width):
    """In evaluation, and with the same dropout in training."""
    batch = {"x": jax.random.normal(jax.random.key(1), (2, *shape))}
    params = model.init(jax.random.key(0), jax.tree.map(lambda x: x[0], batch))
    for key in (None, jax.random.key(2)):
        features = model.features(params, batch, key)
        assert features.shape == (2, width)
        np.testing.assert_allclose(model.head(params, features), model.apply(params, batch, key), rtol=1e-6, atol=1e-6)


def test_a_head_that_the_module_does_not_call_is_refused():
    model = fl.models.from_linen(nn.Sequential([nn.Dense(2), nn.Dense(3)]), head=("layers_9", nn.Dense(3)))
    with pytest.raises(ValueError, match=r"from_linen: head='layers_9' is no layer that the module calls; there are layers_0, layers_1"):
        model.features(model.init(jax.random.key(0), {"x": jnp.zeros(4)}), {"x": jnp.zeros((1, 4))}, None)


def test_a_head_that_is_not_last_or_no_module_is_refused():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return 2 * nn.Dense(3, name="out")(x)

    model = fl.models.from_linen(Scaled(), head=("out", nn.Dense(3)))
    with pytest.raises(ValueError, match="head='out' is not the last layer: the module changes what it gives"):
        model.features(model.init(jax.random.key(0), {"x": jnp.zeros(4)}), {"x": jnp.zeros((1, 4))}, None)
    for head in ("out", ("out",), 3, ("out", nn.Dense)):
        with pytest.raises(ValueError, match="from_linen: head must be a name and a module"):
            fl.models.from_linen(Scaled(), head=head)
