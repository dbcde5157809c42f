"""equinox modules as models: the same numbers as vmapped ones, dropout by the client's key, state refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.models import from_equinox, supervised

eqx = pytest.importorskip("equinox")
EXAMPLE, X = {"x": jnp.zeros(3)}, {"x": jnp.ones((2, 3))}


def said(model, key=None):
    return jax.jit(lambda: model.apply(model.init(jax.random.key(0), EXAMPLE), X, key))()


def mlp(key):
    return eqx.nn.MLP(3, 2, 4, 1, key=key)


def test_the_same_numbers_as_equinoxs_own_and_other_ones_for_another_key():
    model, module = from_equinox(mlp), mlp(jax.random.key(0))
    np.testing.assert_allclose(said(model), jax.vmap(module)(X["x"]), rtol=1e-6)
    params = [model.init(jax.random.key(i), EXAMPLE) for i in (0, 1)]
    assert fl.leaves.paths_of(params[0]) == ["layers/0/bias", "layers/0/weight", "layers/1/bias", "layers/1/weight"]
    assert (params[0]["layers"]["0"]["weight"] != params[1]["layers"]["0"]["weight"]).all()
    fixed = from_equinox(module)
    jax.tree.map(np.testing.assert_array_equal, fixed.init(jax.random.key(7), EXAMPLE), params[0])


def test_dropout_is_of_the_clients_key_other_for_each_example_and_off_in_evaluation():
    class Dropping(eqx.Module):
        layer: eqx.nn.Linear
        dropout: eqx.nn.Dropout

        def __init__(self, key):
            self.layer, self.dropout = eqx.nn.Linear(3, 1, key=key), eqx.nn.Dropout(0.5)

        def __call__(self, x, *, key=None):
            return self.dropout(jnp.ones(64) + 0 * self.layer(x), key=key)

    model = from_equinox(Dropping)
    assert (said(model) == 1).all()
    masks = [np.asarray(said(model, jax.random.key(i))) for i in (1, 2)]
    assert set(masks[0].ravel().tolist()) == {0, 2}
    assert (masks[0] != masks[1]).any() and (masks[0][0] != masks[0][1]).any()


@pytest.mark.deep
def test_it_learns_and_its_file_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    data = fl.FederatedData.from_arrays({"x": x, "y": (x[:, 0] > 0).astype(int)}, np.arange(40) % 4)
    model = from_equinox(mlp)
    loss_fn, params = supervised(model), model.init(jax.random.key(0), data.example)
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.5), batches=fl.Batches(5), population=4)
    options = {"rounds": 3, "evaluate_every": 1, "key": jax.random.key(1), "loss_fn": loss_fn, "progress": False, "out": tmp_path / "run"}
    result = fl.run(algorithm, data, params, fl.sampling.everyone(), **options)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    jax.tree.map(np.testing.assert_array_equal, fl.load_params(tmp_path / "run", params), result.params)


def test_state_and_whole_numbers_are_refused():
    class Counting(eqx.Module):
        layer: eqx.nn.Linear
        count: jax.Array

    with pytest.raises(ValueError, match="from_equinox: the module keeps state"):
        said(from_equinox(lambda key: eqx.nn.BatchNorm(3, "batch", mode="batch")))
    with pytest.raises(ValueError, match=r"from_equinox: the module's .count has no gradient"):
        said(from_equinox(lambda key: Counting(eqx.nn.Linear(3, 1, key=key), jnp.arange(2))))
    with pytest.raises(TypeError, match="from_equinox: make must make an equinox module, and makes int"):
        said(from_equinox(lambda key: 3))
