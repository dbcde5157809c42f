"""FD: models stay with their clients and say what they think of each class, against plain NumPy."""

import jax
import numpy as np
import optax
import pytest
import scipy.special
from problems import CLASSES, SIZES, softmax_data, softmax_loss, softmax_params
from rounds import filled, trained

import fedjax_lite as fl
from fedjax_lite.models import Model

POPULATION, KEY = len(SIZES), 3
PARAMS = softmax_params().astype(np.float32)
LINEAR = Model(lambda key, example: PARAMS, lambda params, batch, key: batch["x"] @ params)


def fd(gamma=0.5):
    return fl.algorithms.fd(
        LINEAR, optax.sgd(0.2), CLASSES, batches=fl.Batches(None, epochs=2), population=POPULATION, gamma=gamma, engine=fl.padded()
    )


def by_hand(gamma, cohorts):
    """Full-batch steps of every client in turn; what was said of a round is of its cohort."""
    data, W = softmax_data(), {k: np.asarray(PARAMS, float) for k in range(POPULATION)}
    examples = [jax.tree.map(np.asarray, data.client(k)) for k in range(POPULATION)]
    said = {}
    for ids in cohorts:
        now = {}
        for k in ids:
            x, y = examples[k]["x"], examples[k]["y"]
            others = [said[j] for j in said if j != k]
            soft = np.zeros((len(y), CLASSES))
            for i, label in enumerate(y):
                rows = [outputs[label] for outputs, has in others if has[label]]
                soft[i] = np.mean(rows, axis=0) if rows else 0
            sums, number = np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES)
            for _ in range(2):
                p = scipy.special.softmax(x @ W[k], axis=-1)
                for i, label in enumerate(y):
                    sums[label] += p[i]
                    number[label] += 1
                hard = np.eye(CLASSES)[y]
                slope = (p - hard) + gamma * (soft.sum(-1, keepdims=True) * p - soft)
                W[k] = W[k] - 0.2 * x.T @ slope / len(y)
            now[k] = sums / np.maximum(number, 1)[:, None], number > 0
        said = now
    return np.stack([W[k] for k in range(POPULATION)])


DEFAULT = fd()


def models_after(cohorts, built=DEFAULT, slots=4):
    state, history = trained(built, softmax_data(), PARAMS, [filled(ids, slots) for ids in cohorts], KEY)
    return state, built.params(state), history


@pytest.mark.parametrize("cohorts", [((4, 2, 6), (2, 1, 4), (6, 4, 0, 5)), ((3,), (3,))], ids=["several", "one client, which trains alone"])
def test_fd_is_the_papers_loop(cohorts):
    _, found, history = models_after(cohorts)
    np.testing.assert_allclose(found, by_hand(0.5 if len(cohorts) > 2 else 0.0, cohorts), atol=2e-5)
    assert history["uplink_bits"].tolist() == [len(ids) * 32 * (CLASSES * CLASSES + CLASSES) for ids in cohorts]


@pytest.mark.deep
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_fd_with_every_client_is_the_papers_loop(gamma):
    cohorts = (range(POPULATION),) * 3
    np.testing.assert_allclose(models_after(cohorts, fd(gamma), POPULATION)[1], by_hand(gamma, cohorts), atol=2e-5)


def test_fd_of_nobody_changes_nothing():
    state, found, _ = models_after(((), ()))
    np.testing.assert_array_equal(found, np.broadcast_to(PARAMS, found.shape))
    assert state.server[1] == -1


@pytest.mark.deep
def test_a_run_evaluates_each_clients_model_on_its_own_examples():
    options = {"rounds": 1, "key": jax.random.key(KEY), "progress": False, "loss_fn": DEFAULT.loss_fn, "test": softmax_data(SIZES[::-1])}
    result = fl.run(DEFAULT, softmax_data(), PARAMS, fl.sampling.everyone(), **options)
    losses = [fl.evaluate(softmax_loss, model, options["test"])["loss"] for model in result.params]
    own = sum(float(loss.total[k]) for k, loss in enumerate(losses)), sum(SIZES)
    assert result.history[-1]["test_own_loss"] == pytest.approx(own[0] / own[1], rel=1e-5)
    assert result.history[-1]["test_loss"] == pytest.approx(np.mean([loss.total.sum() for loss in losses]) / own[1], rel=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="fd: gamma must be at least 0, got -1.0"):
        fd(-1.0)
