"""Every loss and its gradient against float64 NumPy, written from the papers; their metrics, choices that are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss, top_k_accuracy_score

import fedjax_lite as fl
from fedjax_lite.models import Model, supervised

GIVEN = Model(None, lambda params, batch, key: params)  # its parameters are its outputs
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LOGITS, LABELS = 3 * RNG.normal(size=(6, 4)), np.array([0, 3, 3, 1, 2, 0])
COUNTS, WEIGHTS = np.array([5.0, 0.0, 2.0, 30.0]), np.array([0.5, 2.0, 0.0, 1.0])
TWO, MANY = RNG.normal(size=6) * 3, (RNG.random((6, 4)) < 0.4).astype(int)


def one_hot(labels, classes=4):
    return np.eye(classes)[labels]


def smoothed(z, y, e):
    q = (1 - e) * one_hot(y) + e / 4
    return -(q * log_softmax(z, -1)).sum(-1)


def focal(z, y, g):
    p = np.take_along_axis(np.exp(log_softmax(z, -1)), y[:, None], -1)[:, 0]
    return -((1 - p) ** g) * np.log(p)


def balanced(z, y, n):
    """-log n_y exp z_y / sum_c n_c exp z_c, the label's class counting at least once."""
    n = np.broadcast_to(n, z.shape)
    n = np.where(n > 0, n, one_hot(y))
    return np.log((n * np.exp(z)).sum(-1)) - np.log((n * one_hot(y) * np.exp(z)).sum(-1))


def sigmoid(z, y, e=0.0, g=0.0):
    p, q = expit(z), (1 - e) * y + e / 2
    right = np.where(y == 1, p, 1 - p)
    return -((1 - right) ** g) * (q * np.log(p) + (1 - q) * np.log1p(-p))


def trained(loss_fn, z, y):
    """Losses in training, and the gradient of their sum."""

    def summed(z, y):
        losses, _ = loss_fn(z, {"y": y}, KEY)
        return losses.sum(), losses

    gradient, losses = jax.jit(jax.grad(summed, has_aux=True))(jnp.asarray(z), jnp.asarray(y))
    return losses, gradient


SOFTMAX = {
    "plain": ({}, lambda z: smoothed(z, LABELS, 0)),
    "smoothed": ({"label_smoothing": 0.1}, lambda z: smoothed(z, LABELS, 0.1)),
    "focal": ({"focal": 2.0}, lambda z: focal(z, LABELS, 2.0)),
    "focal below 1": ({"focal": 0.5}, lambda z: focal(z, LABELS, 0.5)),
    "balanced": ({"class_counts": COUNTS}, lambda z: balanced(z, LABELS, COUNTS)),
    "balanced by shares": ({"class_counts": (COUNTS + 1) / 100}, lambda z: balanced(z, LABELS, COUNTS + 1)),
    "weighted": ({"class_weights": WEIGHTS}, lambda z: WEIGHTS[LABELS] * smoothed(z, LABELS, 0)),
    "weighted, smoothed": (
        {"class_weights": WEIGHTS, "label_smoothing": 0.2},
        lambda z: WEIGHTS[LABELS] * smoothed(z, LABELS, 0.2),
    ),
}
SIGMOID = {
    "plain": ({}, lambda z, y: sigmoid(z, y)),
    "smoothed": ({"label_smoothing": 0.1}, lambda z, y: sigmoid(z, y, e=0.1)),
    "focal": ({"focal": 2.0}, lambda z, y: sigmoid(z, y, g=2.0)),
}


def said(loss_fn, z, y, key=None):
    return jax.jit(lambda z, y: loss_fn(z, {"y": y}, key))(jnp.asarray(z), jnp.asarray(y))


def check(loss_fn, z, y, oracle):
    """Losses and their sum's gradient in training, by central differences of the oracle; and the plain loss in evaluation."""
    losses, gradient = trained(loss_fn, z, y)
    np.testing.assert_allclose(losses, oracle(z), rtol=1e-10, atol=1e-12)
    h, wanted = 1e-6, np.zeros(z.shape)
    for place in np.ndindex(z.shape):
        step = np.zeros(z.shape)
        step[place] = h
        wanted[place] = (oracle(z + step).sum() - oracle(z - step).sum()) / (2 * h)
    np.testing.assert_allclose(gradient, wanted, atol=1e-7)


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax(name, x64):
    options, oracle = SOFTMAX[name]
    loss_fn = supervised(GIVEN, **options)
    check(loss_fn, LOGITS, LABELS, oracle)
    plain, _ = said(loss_fn, LOGITS, LABELS)
    np.testing.assert_allclose(plain, smoothed(LOGITS, LABELS, 0), rtol=1e-10)


@pytest.mark.parametrize("name", SIGMOID)
def test_binary_and_multilabel(name, x64):
    options, oracle = SIGMOID[name]
    check(supervised(GIVEN, "binary", **options), TWO, MANY[:, 0], partial(oracle, y=MANY[:, 0]))
    check(supervised(GIVEN, "multilabel", **options), LOGITS, MANY, lambda z: oracle(z, MANY).mean(-1))


def test_weights_of_binary_and_multilabel_and_their_plain_loss(x64):
    binary = supervised(GIVEN, "binary", class_weights=[0.5, 3.0])
    check(binary, TWO, MANY[:, 0], lambda z: np.where(MANY[:, 0], 3.0, 0.5) * sigmoid(z, MANY[:, 0]))
    check(supervised(GIVEN, "multilabel", class_weights=WEIGHTS), LOGITS, MANY, lambda z: (WEIGHTS * sigmoid(z, MANY)).mean(-1))
    plain, metrics = said(binary, TWO[:, None], MANY[:, 0])
    assert float(plain.mean()) == pytest.approx(log_loss(MANY[:, 0], expit(TWO)), rel=1e-10)
    assert metrics["accuracy"].tolist() == ((TWO > 0) == MANY[:, 0]).tolist()


def test_focal_keeps_its_digits_where_the_model_is_sure():
    loss_fn = supervised(GIVEN, focal=0.5)
    losses, gradient = trained(loss_fn, np.array([[40.0, 0.0], [0.0, 0.0]]), np.zeros(2, int))
    assert losses[0] == 0 and losses[1] == pytest.approx(0.5**0.5 * np.log(2)) and np.isfinite(gradient).all()


def test_multilabel_with_labels_that_nobody_looked_for():
    y = np.array([[1, -1, 0, -1], [-1, -1, -1, -1], [1, 0, 0, 1]])
    z = np.array([[2.0, 9.0, 1.0, -9.0], [0, 0, 0, 0], [1.0, -1.0, -2.0, 3.0]])
    losses, metrics = said(supervised(GIVEN, "multilabel", ignore=-1), z, y)
    each = sigmoid(z, y)
    wanted = [each[0, [0, 2]].mean(), np.nan, each[2].mean()]
    np.testing.assert_allclose(losses.value(), wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"].value(), [0.5, np.nan, 1])
    np.testing.assert_allclose(metrics["exact_match"].value(), [0, np.nan, 1])


def test_the_label_is_among_the_k_highest():
    logits = RNG.normal(size=(50, 6))
    labels = RNG.integers(0, 6, 50)
    _, metrics = said(supervised(GIVEN, top=[2, 5]), logits, labels)
    for k in (2, 5):
        assert metrics[f"top{k}_accuracy"].mean().item() == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=np.arange(6)))
    tied, nan = np.zeros((3, 4)), np.full((3, 4), np.nan)
    found = [said(supervised(GIVEN, top=[2]), z, np.array([0, 1, 2]))[1]["top2_accuracy"].tolist() for z in (tied, nan)]
    assert found == [[1, 1, 0], [0, 0, 0]]  # of equal logits the lower class first, as argmax has it


def test_a_clients_own_counts_are_looked_up_by_its_id():
    """Of two clients with one example each of classes 0 and 1: the first has counts 9 and 1, the second 1 and 9."""
    data = fl.FederatedData.from_clients([{"y": np.zeros(1, int)}, {"y": np.ones(1, int)}])
    model = Model(None, lambda params, batch, key: jnp.broadcast_to(params, (len(batch["y"]), 2)))
    loss_fn = supervised(model, class_counts=[[9.0, 1.0], [1.0, 9.0]])
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(1.0), batches=fl.Batches(None), population=2)
    run = jax.jit(lambda data: fl.simulate(algorithm, data, jnp.zeros(2), fl.sampling.everyone(), rounds=1, key=KEY))
    state, history = run(data)
    assert history["loss"].item() == pytest.approx(-np.log(0.9), rel=1e-5)
    np.testing.assert_allclose(algorithm.params(state), 0, atol=1e-6)
    with pytest.raises(ValueError, match=r"supervised: class_counts has 2 rows for 1 clients: give one for each"):
        loss_fn.check(jnp.zeros(2), fl.FederatedData.from_clients([{"y": np.zeros(1, int)}]), "data")


def test_counts_of_a_client_are_refused_where_examples_are_private_or_pooled():
    loss_fn = supervised(GIVEN, class_counts=[[9.0, 1.0]])
    gradients = fl.privacy.record_level(1.0, 1.0, 1)
    with pytest.raises(ValueError, match="record_level: the loss of an example depends on its client's other examples"):
        gradients(loss_fn, jnp.zeros((1, 2)), None, KEY)
    with pytest.raises(ValueError, match="centralised: loss_fn has class_counts of each client, and here all examples are one's"):
        fl.baselines.centralised(loss_fn, optax.sgd(0.1), batches=fl.Batches(1))


def test_perplexity_is_the_exponential_of_the_mean_over_tokens():
    logits = RNG.normal(size=(3, 5, 4))
    labels = np.array([[1, 2, 0, 0, 0], [3, 3, 2, 1, 1], [2, 0, 0, 0, 0]])
    data = fl.FederatedData.from_clients([{"x": logits[:2], "y": labels[:2]}, {"x": logits[2:], "y": labels[2:]}])
    loss_fn = supervised(Model(None, lambda params, batch, key: batch["x"]), ignore=0, mean="tokens")
    sums = jax.jit(lambda data: fl.evaluate(loss_fn, 0.0, data))(data)
    each = -np.take_along_axis(log_softmax(logits, -1), labels[..., None], -1)[..., 0][labels > 0]
    summary = fl.summarize(sums)
    assert summary["test_perplexity"] == pytest.approx(np.exp(each.mean()), rel=1e-5)
    assert summary["test_log_perplexity"] == summary["test_loss"]
    assert fl.summarize({"loss": sums["loss"]}).keys() == {"test_loss", "test_clients"}


REFUSED = [
    ({"loss": "hinge"}, "supervised: loss must be one of 'softmax', 'squared', 'binary', 'multilabel', got 'hinge'"),
    ({"loss": "squared", "ignore": 1}, "supervised: ignore=1 is a label"),
    ({"loss": "squared", "focal": 1.0}, "supervised: focal needs loss='softmax' or 'binary' or 'multilabel', got 'squared'"),
    ({"loss": "binary", "top": [5]}, "supervised: top needs loss='softmax', got 'binary'"),
    ({"top": [1]}, r"supervised: top must be a list of different whole numbers of at least 2, such as \[5\], got"),
    ({"label_smoothing": 1.0}, r"supervised: label_smoothing must be in \[0, 1\), got 1.0"),
    ({"focal": -1.0}, "supervised: focal must be finite and not negative, got -1.0"),
    ({"focal": 1.0, "label_smoothing": 0.1}, "supervised: label_smoothing and focal each change the same term"),
    ({"class_weights": [1.0, float("nan")]}, "supervised: class_weights must be finite and not negative"),
    ({"class_weights": [[1.0]]}, r"supervised: class_weights must be an array \[classes\], got the shape \[1, 1\]"),
    ({"class_weights": "own"}, "supervised: class_weights must be a list of numbers, one a class, got 'own'"),
    ({"class_weights": [1.0] * 3, "loss": "binary"}, "supervised: class_weights must be two, of the labels 0 and 1, got 3"),
]


@pytest.mark.parametrize("options, message", REFUSED)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        supervised(GIVEN, **options)


def test_refused_when_called():
    z, y = jnp.zeros((2, 4)), np.zeros(2, int)
    with pytest.raises(ValueError, match="supervised: class_weights has 3 numbers, the model 4 classes: give one for each"):
        supervised(GIVEN, class_weights=[1.0] * 3)(z, {"y": y}, KEY)
    with pytest.raises(ValueError, match='supervised: outputs .2, 4. for labels .2,.: "binary" needs one output for each label'):
        supervised(GIVEN, "binary")(z, {"y": y}, KEY)
    with pytest.raises(ValueError, match='"multilabel" needs labels .batch, classes., and an output for each class'):
        supervised(GIVEN, "multilabel")(z[:, 0], {"y": y}, KEY)
    data = fl.FederatedData.from_clients([{"y": np.array([0, 2])}])
    with pytest.raises(ValueError, match='data: label 2 of client 0 is out of range: the loss "binary" is of labels 0 and 1'):
        supervised(GIVEN, "binary").check(z, data, "data")
