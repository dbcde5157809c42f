"""Ditto against a table of reference values, and its two ends."""

import jax
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A5, trajectory

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
# lambda -> the models of clients 0 to 4 after two rounds of A5.
TABLE = {
    1.0: [(0.33616, 0), (-0.489461588, 0.7103429), (0.3252747754, -0.7530850283), (1.10924, 0.1854315625), (0.0387678027, 0.2633158375)],
    0.1: [
        (0.401449141, 0), (-0.7925163946, 0.8074390544), (0.0388976883, -0.9032995060), (1.318655924, 0.221746648),
        (-0.240821167, 0.2768260129),
    ],
}  # fmt: skip


def built(lam, **more):
    given = {"batches": quadratics.batches(A5), "population": A5.population, "aggregator": fl.aggregators.mean()}
    return fl.algorithms.ditto(quadratics.loss_fn, optax.sgd(0.1), lam=lam, **given | more)


@pytest.mark.parametrize("lam", [pytest.param(0.1, marks=pytest.mark.deep), 1.0])
def test_own_models_are_the_tables_and_the_global_one_is_fedavgs(lam):
    states, params, _ = trajectory(built(lam), A5, 2)
    np.testing.assert_allclose(states.own.model[-1], TABLE[lam], atol=1e-9)
    np.testing.assert_allclose(params, [(0.877075, 0.1131095313), (0.0350531347, 0.1002333626)], atol=1e-9)


@pytest.mark.deep
def test_without_a_pull_each_trains_alone_and_another_optimizer_is_the_own_models():
    given = {"batches": quadratics.batches(A5), "population": A5.population}
    alone = fl.baselines.local_only(quadratics.loss_fn, optax.sgd(0.1), **given)
    states, _, _ = trajectory(built(0.0), A5, 2)
    np.testing.assert_allclose(states.own.model, trajectory(alone, A5, 2)[0].own.model, atol=1e-12)
    still, params, _ = trajectory(built(1.0, personal_optimizer=optax.sgd(0.0)), A5, 2)
    np.testing.assert_array_equal(still.own.model, np.zeros((2, 5, 2)))
    np.testing.assert_allclose(params[1], (0.0350531347, 0.1002333626), atol=1e-9)


def test_a_model_that_is_not_finite_is_not_kept_and_refusals():
    wild = built(1.0, personal_optimizer=optax.sgd(1e300))
    states, params, _ = trajectory(wild, A5, 1)
    np.testing.assert_array_equal(states.own.model[0], np.zeros((5, 2)))
    assert np.isfinite(params).all()
    with pytest.raises(ValueError, match="ditto: lam must be"):
        built(-1.0)
    state = built(1.0).init(np.zeros(2), jax.random.key(0))
    touched = state._replace(own=fl.Touched(np.zeros(0, np.int32), ()))
    with pytest.raises(ValueError, match="what clients keep is in host memory"):
        built(1.0).models(touched)
