"""Areas, recall, precision and confusion against scikit-learn, with ties; scores that stay apart; what is refused."""

import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score, roc_auc_score

import fedjax_lite as fl
from fedjax_lite.models import Model, supervised

AS_GIVEN = Model(None, lambda params, batch, key: batch["x"])
RNG = np.random.default_rng(0)


def data_of(x, y, clients=1):
    parts = zip(np.array_split(x, clients), np.array_split(y, clients), strict=True)
    return fl.FederatedData.from_clients([{"x": a, "y": b} for a, b in parts])


def scored(loss_fn, data, batch=1024):
    scores, labels = jax.jit(lambda data: fl.class_scores(loss_fn, (), data, batch=batch))(data)
    return fl.classification(scores, labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(2, 60), st.integers(1, 4), st.integers(0, 10**6))
def test_several_classes_with_ties(classes, examples, values, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, values, (examples, classes)).astype(float), rng.integers(0, classes, examples)
    found, names = fl.classification(scores, labels), np.arange(classes)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, scores.argmax(1), labels=names))
    for c in names:
        some = 0 < (labels == c).sum() < examples
        wanted = roc_auc_score(labels == c, scores[:, c]) if some else np.nan
        np.testing.assert_allclose(found.auc[c], wanted, rtol=1e-12)
    for rate, of in (("recall", recall_score), ("precision", precision_score)):
        wanted = of(labels, scores.argmax(1), labels=names, average=None, zero_division=np.nan)
        np.testing.assert_allclose(getattr(found, rate), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and not there
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


@pytest.mark.parametrize("batch", [1024, 7])
def test_a_models_probabilities_are_in_the_order_of_its_scores(batch):
    logits, labels = RNG.normal(size=(40, 3)).astype(np.float32), RNG.integers(0, 3, 40)
    found = scored(supervised(AS_GIVEN), data_of(logits, labels, clients=3), batch)
    p = np.exp(log_softmax(logits.astype(np.float64), -1))
    assert found.macro_auc == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"), rel=1e-12)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, logits.argmax(1)))


def test_scores_of_a_sure_model_stay_apart():
    """Probabilities 1 - e^-40 and 1 - e^-60 are both 1 in float32, and the log-odds 40 and 60."""
    scores, _ = fl.class_scores(supervised(AS_GIVEN), (), data_of(np.array([[40.0, 0], [60.0, 0]]), np.array([1, 0])))
    np.testing.assert_allclose(scores, [[40, -40], [60, -60]], rtol=1e-6)
    assert fl.classification(scores, [1, 0]).auc.tolist() == [1, 1]


def test_labels_of_0_and_1():
    z, y = RNG.integers(-2, 3, 50).astype(np.float32), RNG.integers(0, 2, 50)
    found = scored(supervised(AS_GIVEN, "binary"), data_of(z, y))
    assert found.auc.tolist() == pytest.approx([roc_auc_score(y, z)] * 2)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(y, z > 0))


def test_several_labels_an_example_some_unknown():
    z, y = RNG.normal(size=(50, 3)).astype(np.float32), RNG.integers(-1, 2, (50, 3))
    found = scored(supervised(AS_GIVEN, "multilabel", ignore=-1), data_of(z, y))
    assert found.confusion is None
    for c in range(3):
        there = y[:, c] >= 0
        label, score = y[there, c], z[there, c]
        assert found.auc[c] == pytest.approx(roc_auc_score(label, score))
        assert found.recall[c] == pytest.approx(recall_score(label, score > 0))
        assert found.precision[c] == pytest.approx(precision_score(label, score > 0))
        assert found.examples[c] == label.sum()


def test_an_ignored_label_counts_nowhere_and_one_class_has_no_area():
    x, y = np.array([[1.0, 0], [0, 1.0], [0, 1.0]]), np.array([0, 0, 1])
    found = scored(supervised(AS_GIVEN, ignore=1), data_of(x, y))
    assert found.confusion.tolist() == [[1, 1], [0, 0]] and np.isnan(found.auc).all() and np.isnan(found.macro_auc)
    assert np.isnan(fl.classification([[np.nan, 0.0], [1.0, 0.0]], [0, 1]).auc).tolist() == [True, False]


def test_refused():
    data = data_of(np.zeros((2, 3)), np.zeros(2, int))
    with pytest.raises(ValueError, match="classification: loss_fn tells no scores of classes: take fl.models.supervised"):
        fl.class_scores(lambda params, batch, key: batch["x"], (), data)
    with pytest.raises(ValueError, match='classification: the loss is "squared", of numbers'):
        fl.class_scores(supervised(AS_GIVEN, "squared"), (), data)
    with pytest.raises(ValueError, match="class_scores: batch must be an int of at least 1, got 0"):
        fl.class_scores(supervised(AS_GIVEN), (), data, batch=0)
    with pytest.raises(ValueError, match=r"classification: scores \[2, 3\] for labels \[3\]: give scores"):
        fl.classification(np.zeros((2, 3)), [0, 1, 2])
    for labels, said in (([0, 3], "int64 up to 3"), ([0.0, 1.0], "float64 up to 1.0")):
        with pytest.raises(ValueError, match=f"classification: labels must be whole numbers below 3, got {said}"):
            fl.classification(np.zeros((2, 3)), labels)
    words = data_of(np.zeros((2, 4, 3)), np.zeros((2, 4), int))
    with pytest.raises(ValueError, match=r"classification: labels have the shape \[4\] an example: it is for one label an example"):
        fl.class_scores(supervised(AS_GIVEN), (), words)
