"""FedSAM and MoFedSAM against plain NumPy on ragged minibatches; the norm is of the whole model, and both gradients draw alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from problems import SIZES
from quadratics import A4, A5, trajectory
from ragged import COHORTS, RATE, assert_same, gradient, start, states, taking_part

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")


def uphill(y, batch, rho):
    """The gradient at y + rho g / |g|."""
    g = gradient(y, batch)
    return gradient(y + rho * g / np.sqrt(np.sum(g * g)), batch)


def by_hand(rho):
    """The models of FedSAM after each round, weighted by examples."""
    x = start()
    for ids in COHORTS:
        total, moved = 0, 0.0
        for k, batches in taking_part(ids):
            y = x
            for batch in batches:
                y = y - RATE * uphill(y, batch, rho)
            total, moved = total + SIZES[k], moved + SIZES[k] * (y - x)
        x = x + moved / total
        yield x


def test_rounds_equal_the_numpy_loop():
    found, params = states("fedsam", optax.sgd(RATE), rho=0.2)
    assert_same([params(state) for state in found], list(by_hand(0.2)))


def of_two_leaves(params, batch, key):
    """A loss whose gradient is (3, 4 b), times a mask of dropout."""
    kept = 1.0 if key is None else jax.random.bernoulli(key, 0.5, batch["x"].shape)
    return kept * batch["x"] * (3 * params["a"] + 2 * params["b"] ** 2)


@pytest.mark.deep
def test_the_norm_is_of_the_whole_tree_and_both_gradients_have_one_mask():
    """At b = 1 the gradient is (3, 4), of norm 5: at b + 0.8 rho it is (3, 4 + 3.2 rho); and both are 0 where the mask is."""
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}])
    built = fl.algorithms.fedsam(of_two_leaves, optax.sgd(1.0), batches=fl.Batches(1, steps=1), population=1, rho=0.5)
    seen = set()
    for seed in range(8):
        first = {"a": jnp.zeros(()), "b": jnp.ones(())}
        state, _ = fl.simulate(built, data, first, fl.sampling.everyone(), rounds=1, key=jax.random.key(seed))
        seen.add(tuple(round(float(x), 9) for x in built.params(state).values()))
    assert seen == {(0.0, 1.0), (-3.0, 1 - 5.6)}


@pytest.mark.deep
def test_rho_zero_is_fedavg_and_a_traced_one_too():
    options = {"batches": quadratics.batches(A5), "population": 5}
    make = jax.vmap(lambda rho: trajectory(fl.algorithms.fedsam(quadratics.loss_fn, optax.sgd(0.1), rho=rho, **options), A5)[1])
    plain = trajectory(fl.algorithms.fedavg(quadratics.loss_fn, optax.sgd(0.1), **options), A5)[1]
    known = trajectory(fl.algorithms.fedsam(quadratics.loss_fn, optax.sgd(0.1), rho=0.0, **options), A5)[1]
    np.testing.assert_allclose(make(jnp.array([0.0]))[0], plain, atol=1e-15)
    np.testing.assert_allclose(known, plain, atol=1e-15)


@pytest.mark.deep
def test_the_limit():
    built = fl.algorithms.fedsam(quadratics.loss_fn, optax.sgd(0.1), batches=quadratics.batches(A4), population=3)
    np.testing.assert_allclose(trajectory(built, A4, 3000)[1][-1], (-0.28547489, -0.06384879), atol=1e-8)


@pytest.mark.deep
def test_where_the_gradient_is_zero_nothing_moves():
    data = fl.FederatedData.from_clients([{"a": np.ones((1, 2)), "c": np.ones((1, 2))}])
    built = fl.algorithms.fedsam(quadratics.loss_fn, optax.sgd(1.0), batches=fl.Batches(1), population=1, rho=0.5)
    state, history = jax.jit(lambda: fl.simulate(built, data, jnp.ones(2), fl.sampling.everyone(), rounds=1, key=jax.random.key(0)))()
    assert built.params(state).tolist() == [1, 1] and history["non_finite"].tolist() == [0]


@pytest.mark.parametrize("make", [fl.algorithms.fedsam, lambda loss_fn, _, **more: fl.algorithms.fedcm(loss_fn, learning_rate=0.1, **more)])
def test_refusals(make):
    options = {"batches": quadratics.batches(A5), "population": 5}
    with pytest.raises(ValueError, match="fed.*: rho must be finite and not negative, got -0.1"):
        make(quadratics.loss_fn, optax.sgd(0.1), rho=-0.1, **options)
    with pytest.raises(ValueError, match="server_learning_rate must be positive and finite, got -1"):
        make(quadratics.loss_fn, optax.sgd(0.1), server_learning_rate=-1, **options)
