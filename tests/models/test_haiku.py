"""haiku's functions as models: dropout by the client's key, none in evaluation, and state that is averaged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.models import WithStatistics, from_haiku, supervised

hk = pytest.importorskip("haiku")
EXAMPLE, X = {"x": jnp.zeros(3)}, {"x": jnp.ones((2, 3))}


def said(model, key=None):
    return jax.jit(lambda: model.apply(model.init(jax.random.key(0), EXAMPLE), X, key))()


def test_the_same_numbers_as_haikus_own():
    def net(x):
        return hk.nets.MLP([4, 2])(x)

    transformed, model = hk.transform(net), from_haiku(hk.transform(net))
    params = model.init(jax.random.key(0), EXAMPLE)
    own = transformed.init(jax.random.key(0), X["x"])
    jax.tree.map(np.testing.assert_array_equal, params, own)
    np.testing.assert_allclose(said(model), transformed.apply(own, None, X["x"]), rtol=1e-6)


def test_dropout_is_of_the_clients_key_and_off_in_evaluation():
    def net(x, is_training):
        ones = jnp.ones((len(x), 64)) + 0 * hk.Linear(64)(x)
        return hk.dropout(hk.next_rng_key(), 0.5, ones) if is_training else ones

    model = from_haiku(hk.transform(net), flag="is_training")
    assert (said(model) == 1).all()
    masks = [np.asarray(said(model, jax.random.key(i))) for i in (1, 2)]
    assert set(masks[0].ravel().tolist()) == {0, 2} and (masks[0] != masks[1]).any()


def test_a_function_that_draws_in_evaluation_is_refused():
    model = from_haiku(hk.transform(lambda x: hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(2)(x))))
    with pytest.raises(ValueError, match="from_haiku: the function draws in evaluation, with no flag: name the argument"):
        said(model)
    with pytest.raises(TypeError, match="from_haiku: transformed must be of haiku.transform or haiku.transform_with_state, got"):
        from_haiku(lambda x: x)


@pytest.mark.deep
def test_running_statistics_are_averaged_over_clients():
    """Of one step a client: haiku's average of a first batch is its mean, and the server's that of the clients'."""
    data = fl.FederatedData.from_clients(
        [{"x": np.full((4, 1), v, np.float32) + [[-1], [0], [0], [1]], "y": np.zeros(4, int)} for v in (1, 5)]
    )
    net = hk.transform_with_state(lambda x, train: hk.Linear(2)(hk.BatchNorm(True, True, 0.9)(x, train)))
    model = from_haiku(net, flag="train")
    params = model.init(jax.random.key(0), data.example)
    assert isinstance(params, WithStatistics)
    algorithm = fl.algorithms.fedavg(supervised(model), optax.sgd(0.1), batches=fl.Batches(4), population=2)
    run = jax.jit(lambda data, params: fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=1, key=jax.random.key(1)))
    after = algorithm.params(run(data, params)[0])
    assert after.statistics["batch_norm/~/mean_ema"]["average"].item() == pytest.approx(3)
    assert after.statistics["batch_norm/~/var_ema"]["average"].item() == pytest.approx(0.5)
    outputs = jax.jit(lambda params: model.apply(params, {"x": jnp.full((1, 1), 3.0)}, None))(after)
    own = {name: dict(leaves) for name, leaves in after.statistics.items()}
    own = {name: leaves | {"counter": leaves["counter"].astype(int)} for name, leaves in own.items()}
    np.testing.assert_allclose(outputs, net.apply(after.params, own, None, jnp.full((1, 1), 3.0), train=False)[0], rtol=1e-5)
