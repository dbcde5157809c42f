"""Whole runs with gradients that are private for each example."""

import jax
import numpy as np
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.privacy.record_level import record_level

C = 0.7


def run(work, engine=None, sizes=(8, 4, 12), rounds=2):
    data = softmax_data(sizes)
    algorithm = fl.federate(
        *(work, fl.aggregators.weighted_mean(), fl.optimizer_server(optax.sgd(1.0))),
        batches=fl.Batches(size=4, epochs=2, shuffle=False),
        population=len(sizes),
        engine=engine,
    )
    state = algorithm.init(softmax_params(), jax.random.key(1))
    state, metrics = jax.jit(lambda state: fl.advance(algorithm, data, state, fl.sampling.everyone(), rounds=rounds))(state)
    return algorithm.params(state), metrics


@pytest.mark.deep
def test_without_clipping_and_noise_full_batches_train_as_ever(x64):
    plain = run(fl.sgd_work(softmax_loss, optax.sgd(0.1), initial_loss="epoch", gradient_norm=True))
    private = run(fl.sgd_work(softmax_loss, optax.sgd(0.1), initial_loss="epoch", gradient_norm=True, gradients=record_level(1e6, 0.0, 4)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), private, plain)


@pytest.mark.deep
@pytest.mark.parametrize("engine", [fl.packed(2), fl.padded()], ids=["packed", "padded"])
def test_engines_agree_on_noise(x64, engine):
    work = fl.sgd_work(softmax_loss, optax.sgd(0.1), gradients=record_level(C, 1.0, 4, microbatch=3))
    reference, found = (run(work, each, sizes=(5, 1, 12, 3)) for each in (fl.sequential(), engine))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, reference)
    assert np.isfinite(reference[0]).all()
