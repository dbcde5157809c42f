"""What counts in a loss: rows that fill up a batch, padding within sequences, labels of each dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.models import Model, supervised
from fedjax_lite.models.loss_fn import mean_loss

DATA = fl.FederatedData.from_clients([{"x": np.array([1.0, 2, 9])}, {"x": np.array([5.0, 7, 6, 4, 8])}])


def batch_mean(params, batch, key, mask=None):
    """A loss that looks across the batch: of each example, the mean of all."""
    real = jnp.ones(batch["x"].shape, bool) if mask is None else mask
    mean = jnp.sum(jnp.where(real, batch["x"], 0)) / jnp.sum(real)
    return jnp.full(batch["x"].shape, mean) + 0 * params


def without_mask(params, batch, key):
    return batch_mean(params, batch, key)


def loss_of(loss_fn, precision):
    """What a round reports of a loss of these clients, in batches of four."""
    work = fl.sgd_work(loss_fn, optax.sgd(0.1), precision=precision)
    server, batches = fl.optimizer_server(optax.sgd(1.0)), fl.Batches(4, shuffle=False)
    algorithm = fl.federate(work, fl.aggregators.mean(), server, batches=batches, population=2)
    sampler, key = fl.sampling.everyone(), jax.random.key(0)
    run = jax.jit(lambda data, params: fl.simulate(algorithm, data, params, sampler, rounds=1, key=key)[1]["loss"])
    return float(run(DATA, jnp.float32(0))[0])


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.deep)])
def test_a_loss_across_the_batch_sees_the_rows_that_fill_it_up_unless_it_takes_the_mask(precision):
    """Batches 1 2 9 (9) | 5 7 6 4 | 8 (8 8 8): the sum of their means by size is the mean of all eight, 5.25."""
    assert loss_of(batch_mean, precision) == 5.25
    assert loss_of(without_mask, precision) == pytest.approx((3 * 5.25 + 4 * 5.5 + 8) / 8, rel=0.01)


def evaluated(loss_fn, params, data, batch=1024):
    return jax.jit(lambda params, data: fl.evaluate(loss_fn, params, data, batch=batch))(params, data)


def test_evaluation_and_losses_around_a_loss_hand_the_mask_on():
    """1 2 9 | 5 7 6 | 4 8 (8): means of 4, 6 and 6, whoever asks."""
    data = fl.FederatedData.from_clients([{"x": np.append(DATA.client(i)["x"], []), "y": np.zeros(n, int)} for i, n in ((0, 3), (1, 5))])
    attack, model = fl.attacks.label_flip(classes=2), Model(None, lambda params, batch, key: jnp.zeros((len(batch["x"]), 2)))
    for loss_fn, params in (
        (fl.distill.mean_over_models(batch_mean), jnp.zeros(2)),
        (fl.attacks.measured(batch_mean, attack, model), jnp.float32(0)),
    ):
        sums = evaluated(loss_fn, params, data, batch=3)["loss"]
        assert sums.total.sum() / sums.count.sum() == pytest.approx((3 * 4 + 3 * 6 + 2 * 6) / 8)


LOGITS = np.random.default_rng(0).normal(size=(3, 4, 5))
LABELS = np.array([[1, 2, 0, 0], [4, 3, 2, 1], [0, 0, 0, 0]])  # 0 is padding


@pytest.mark.parametrize("mean", ["sequences", "tokens"])
def test_padding_counts_nowhere_and_tokens_or_sequences_count_once(mean):
    each = np.log(np.exp(LOGITS).sum(-1)) - np.take_along_axis(LOGITS, LABELS[..., None], -1)[..., 0]
    hits = LOGITS.argmax(-1) == LABELS
    data = fl.FederatedData.from_clients([{"x": LOGITS, "y": LABELS}])
    loss_fn = supervised(Model(None, lambda params, batch, key: batch["x"]), ignore=0, mean=mean)
    sums = evaluated(loss_fn, 0.0, data)
    for name, values in (("loss", each), ("accuracy", hits)):
        of_sequences = (values[0, :2].mean() + values[1].mean()) / 2
        of_tokens = (values[0, :2].sum() + values[1].sum()) / 6
        assert sums[name].value().item() == pytest.approx(of_tokens if mean == "tokens" else of_sequences, rel=1e-5)
        assert sums[name].count.item() == (6 if mean == "tokens" else 2)


WEIGHTS = {"tokens": [[1 / 6] * 2 + [0] * 2, [1 / 6] * 4, [0] * 4], "sequences": [[1 / 4] * 2 + [0] * 2, [1 / 8] * 4, [0] * 4]}


@pytest.mark.parametrize("mean", WEIGHTS)
def test_the_gradient_is_of_the_mean_that_is_taken(mean):
    """Positions weigh 1/6 each, or 1/4 and 1/8 as their sequence is of two or of four; those of padding nothing."""
    loss_fn = supervised(Model(None, lambda params, batch, key: params), ignore=0, mean=mean)
    batch = fl.Batch({"y": jnp.asarray(LABELS)}, jnp.ones(3, bool), 0, 0, 0)
    gradient = jax.jit(jax.grad(lambda z: mean_loss(loss_fn, z, batch, None)[0]))(jnp.asarray(LOGITS, jnp.float32))
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, np.array(WEIGHTS[mean])[..., None] * (softmax - np.eye(5)[LABELS]), atol=1e-6)


def said(loss_fn, batch):
    return jax.jit(lambda batch: loss_fn(None, batch, None))(batch)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32, bool])
def test_labels_of_each_dtype_are_the_same_classes(dtype):
    logits, labels = LOGITS[0, :, :2], np.array([0, 1, 1, 0])
    loss_fn = supervised(Model(None, lambda params, batch, key: batch["x"]))
    losses, metrics = said(loss_fn, {"x": logits, "y": labels.astype(dtype)})
    np.testing.assert_allclose(losses, np.log(np.exp(logits).sum(-1)) - logits[np.arange(4), labels], rtol=1e-5)
    assert metrics["accuracy"].tolist() == (logits.argmax(-1) == labels).tolist()


def test_a_label_between_two_classes_gives_nan():
    loss_fn = supervised(Model(None, lambda params, batch, key: batch["x"]))
    losses, _ = said(loss_fn, {"x": np.zeros((4, 2)), "y": np.array([0, 0.5, 1, 2.0])})
    assert np.isnan(losses).tolist() == [False, True, False, True]


@pytest.mark.parametrize("y", [np.array([2, -1]), np.array([True, False]), np.array([[3.0], [1.0]])])
def test_targets_of_a_squared_loss_are_numbers_of_each_dtype(y):
    loss_fn = supervised(Model(None, lambda params, batch, key: jnp.full((2, 1), 0.5)), "squared")
    np.testing.assert_allclose(said(loss_fn, {"y": y}), 0.5 * (y.reshape(2).astype(float) - 0.5) ** 2)


def test_bad_means():
    model = Model(None, None)
    for options in ({"mean": "words"}, {"mean": "tokens", "loss": "squared"}):
        with pytest.raises(ValueError, match='supervised: mean must be "sequences", or "tokens" where loss="softmax", got'):
            supervised(model, **options)
