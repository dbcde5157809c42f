"""How a model tells classes apart: what needs the scores of all examples at once, and so is no mean over examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import rankdata

from fedjax_lite.base import Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import integer
from fedjax_lite.tree import take

__all__ = ["Classification", "class_scores", "classification"]


class Classification(NamedTuple):
    """How a model tells classes apart, over all examples; NaN where a number has no meaning, for instance of a class that is not there."""

    examples: np.ndarray  # int [classes], of each class
    recall: np.ndarray  # float [classes], the share of them that the model has right: the accuracy of each class
    precision: np.ndarray  # float [classes], of the examples that the model takes for the class, the share that are of it
    auc: np.ndarray  # float [classes], how surely an example of the class has a higher score for it than one of another class
    confusion: np.ndarray | None  # int [classes, classes], row the label, column the prediction; None where an example has several labels

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall over the classes that are there."""
        return _mean(self.recall)

    @property
    def macro_auc(self) -> float:
        """The mean area over the classes of which there are examples, and others."""
        return _mean(self.auc)


def class_scores(loss_fn: LossFn, params: Tree, data: FederatedData, *, batch: int = 1024) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
    """Ask a model for the scores of all examples, for `fl.classification`; pure, for use inside compiled programs.

    Args:
        loss_fn: from `fl.models.supervised`, of classes, one label an example; "binary" and "multilabel" too.
        params: the model.
        data: the examples.
        batch: examples that go through the model at once.

    Returns:
        Scores `[examples, classes]`, log-odds, of "binary" `[examples, 1]`; and labels `[examples]`, of "multilabel" `[examples, classes]`.

    Raises:
        ValueError: for another loss, sequences, or a batch below 1.

    >>> import fedjax_lite as fl
    >>> loss_fn = fl.models.supervised(fl.models.Model(None, lambda params, batch, key: batch["x"]))
    >>> data = FederatedData.from_clients([{"x": jnp.log(jnp.array([[0.2, 0.8]])), "y": jnp.array([1])}])
    >>> scores, labels = class_scores(loss_fn, (), data)
    >>> jnp.exp(scores).round(4).tolist(), labels.tolist()
    ([[0.25, 4.0]], [1])
    """
    scores = getattr(loss_fn, "scores", None)
    if scores is None:
        raise ValueError("classification: loss_fn tells no scores of classes: take fl.models.supervised(model), or what wraps it")
    integer("class_scores", "batch", batch, 1)
    examples = len(jax.tree.leaves(data.examples)[0])
    batch = min(batch, examples)
    rows = jnp.minimum(jnp.arange(-(-examples // batch) * batch), examples - 1).reshape(-1, batch)
    found = jax.lax.map(lambda index: scores(params, take(data.examples, index)), rows)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:examples], found)


def classification(scores: Any, labels: Any) -> Classification:
    r"""Compare scores with labels, on the host and exactly.

    auc_c = (sum of the ranks of class c's scores - n_c (n_c + 1) / 2) / (n_c (n - n_c)), equal scores sharing their mean rank: the
    probability that a score of class c is higher than one of another class, a tie counting half.

    Args:
        scores: `[examples, classes]`, higher for a surer class; or `[examples, 1]`, of label 1 where there are labels 0 and 1.
        labels: `[examples]`; or `[examples, classes]` of 0 and 1, a label for each class, whose scores are on the label's side of 0 where
            they are right. A negative label does not count.

    Raises:
        ValueError: for shapes that do not fit each other, and labels that are no whole numbers below the number of classes.

    >>> found = classification([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0]], [0, 1, 1])
    >>> found.confusion.tolist(), found.recall.tolist(), found.macro_auc
    ([[1, 0], [1, 1]], [1.0, 0.5], 1.0)

    Source: Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the other"; Fawcett 2006,
    "An introduction to ROC analysis", sections 7 and 9 (each class against the rest, here with equal weights).
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    _check(scores, labels)
    if labels.ndim == 2:
        return _of_many(scores, labels)
    there = labels >= 0
    scores, labels = scores[there], labels[there]
    scores = np.concatenate([-scores, scores], axis=1) if scores.shape[1] == 1 else scores
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)  # of a score of 0 for the label 1 the label is 0
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    auc = np.array([_area(scores[:, c], labels == c) for c in range(classes)])
    return Classification(*_rates(np.diag(confusion), confusion.sum(1), confusion.sum(0)), auc, confusion)


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    """Refuse scores and labels that do not fit each other."""
    if scores.ndim != 2 or labels.shape not in (scores.shape[:1], scores.shape):
        raise ValueError(
            f"classification: scores {list(scores.shape)} for labels {list(labels.shape)}: give scores [examples, classes], and labels "
            "[examples] or [examples, classes]"
        )
    classes = 2 if labels.ndim == 2 else max(2, scores.shape[1])
    if not np.issubdtype(labels.dtype, np.integer) or (labels >= classes).any():
        highest = labels.max(initial=0)
        raise ValueError(f"classification: labels must be whole numbers below {classes}, got {labels.dtype} up to {highest}: map them")


def _of_many(scores: np.ndarray, labels: np.ndarray) -> Classification:
    """Compare scores with labels 0 and 1 of each class, each class by itself."""
    there, taken = labels >= 0, scores > 0
    right = ((labels == 1) & taken).sum(0)
    auc = np.array([_area(scores[there[:, c], c], labels[there[:, c], c] == 1) for c in range(labels.shape[1])])
    return Classification(*_rates(right, (labels == 1).sum(0), (there & taken).sum(0)), auc, None)


def _rates(right: np.ndarray, count: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts, recall and precision of each class."""
    with np.errstate(invalid="ignore"):
        return count, right / count, right / taken


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the curve of one class; NaN without examples of it or of others, and for scores that are NaN."""
    mine, others = int(positive.sum()), int((~positive).sum())
    if not mine or not others or np.isnan(scores).any():
        return float("nan")
    return float((rankdata(scores)[positive].sum() - mine * (mine + 1) / 2) / (mine * others))


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
