"""APFL against a table of reference values, and its two ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A5, trajectory

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
# Whether alpha is learned, from 0.5 -> the models v of clients 0 to 4 after two rounds of A5, and their alphas.
TABLE = {
    False: ([
        (0.2157728711, 0), (-0.6413632343, 0.4205889843), (-0.0483157676, -0.5997515500), (0.7498387500, 0.1160442938),
        (-0.2624809763, 0.1362853715),
    ], [0.5] * 5),
    True: ([
        (0.2124192641, 0), (-0.8039555773, 0.7159337648), (-0.0479535940, -0.6253934966), (0.6109436542, 0.0922471922),
        (-0.2855380514, 0.1849835885),
    ], [0.4645957447, 0.9662224315, 0.4683782552, 0.0911115873, 0.7784165535]),
}  # fmt: skip
FEDAVG = [(0.877075, 0.1131095313), (0.0350531347, 0.1002333626)]


def built(**more):
    given = {"batches": quadratics.batches(A5), "population": A5.population, "aggregator": fl.aggregators.mean()}
    return fl.algorithms.apfl(quadratics.loss_fn, learning_rate=0.1, **given | more)


@pytest.mark.parametrize("adaptive", [pytest.param(False, marks=pytest.mark.deep), True])
def test_models_and_alphas_are_the_tables_and_the_global_model_is_fedavgs(adaptive):
    algorithm = built(adaptive=adaptive)
    states, params, _ = trajectory(algorithm, A5, 2)
    v, alpha = TABLE[adaptive]
    np.testing.assert_allclose(states.own.model[-1], v, atol=1e-9)
    np.testing.assert_allclose(states.own.alpha[-1], alpha, atol=1e-9)
    np.testing.assert_allclose(params, FEDAVG, atol=1e-9)
    last = jax.tree.map(lambda x: x[-1], states)
    mixture = np.array(alpha)[:, None] * v + (1 - np.array(alpha))[:, None] * np.array(FEDAVG[1])
    np.testing.assert_allclose(algorithm.models(last), mixture, atol=1e-9)
    np.testing.assert_allclose(algorithm.models(last, jnp.array([3, 1])), mixture[[3, 1]], atol=1e-9)
    np.testing.assert_allclose(algorithm.models(last, jnp.int32(2)), mixture[2], atol=1e-9)


@pytest.mark.deep
def test_the_ends_are_fedavg_and_training_alone():
    states, params, _ = trajectory(built(alpha=0.0, adaptive=False), A5, 2)
    np.testing.assert_allclose(params, FEDAVG, atol=1e-9)
    np.testing.assert_allclose(built(alpha=0.0).models(jax.tree.map(lambda x: x[-1], states)), [FEDAVG[1]] * 5, atol=1e-9)
    alone = fl.baselines.local_only(quadratics.loss_fn, optax.sgd(0.1), batches=quadratics.batches(A5), population=A5.population)
    states, _, _ = trajectory(built(alpha=1.0, adaptive=False), A5, 2)
    np.testing.assert_allclose(states.own.model, trajectory(alone, A5, 2)[0].own.model, atol=1e-12)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alphas_that_are_refused(alpha):
    with pytest.raises(ValueError, match=r"apfl: alpha must be in \[0, 1\], got"):
        built(alpha=alpha)
