"""How the model of a run that has ended tells classes apart, on all held-out examples."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import State
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.engine import placement
from fedjax_lite.evaluation import Classification, class_scores, classification
from fedjax_lite.metrics import AUC, BALANCED, prefix_of
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.fit import Setup
from fedjax_lite.runner.records import plain

__all__ = ["check_classification", "classified", "numbers_of", "summary_of"]

MOST_SCORES = 2**27  # examples by classes, whose scores are on the host at once: half a gigabyte


def check_classification(setup: Setup, wanted: bool) -> None:
    """Refuse a classification of data or by a loss that has none, before the first round.

    Raises:
        ValueError: saying why.
    """
    if not wanted:
        return
    if setup.loss_fn is None:
        raise ValueError("classification: the model is evaluated by loss_fn, and there is none: give loss_fn")
    if not isinstance(setup.held_out, FederatedData):
        raise ValueError("classification: the examples must be in memory, and these are streamed: give a test part")
    params = jax.eval_shape(lambda params, key: setup.algorithm.params(setup.algorithm.init(params, key)), setup.params, setup.key)
    scores, _ = jax.eval_shape(partial(class_scores, setup.loss_fn), params, setup.held_out)
    if scores.size > MOST_SCORES:
        raise ValueError(
            f"classification: {scores.shape[0]:,} examples of {scores.shape[1]:,} classes are {scores.size:,} scores, and at most "
            f"{MOST_SCORES:,} are compared: leave it out"
        )


def classified(setup: Setup, state: State) -> Classification:
    """Compare the scores of the global model with the labels of all held-out examples."""
    params, held_out = placement.everywhere((setup.algorithm.params(state), setup.held_out))
    return classification(*jax.device_get(_scores(setup.loss_fn, params, held_out)))


def numbers_of(found: Classification, test: Any) -> dict[str, float | None]:
    """Return what stands beside the metrics of an evaluation, by name."""
    return {prefix_of(test) + name: plain(value) for name, value in ((BALANCED, found.balanced_accuracy), (AUC, found.macro_auc))}


def summary_of(found: Classification, test: Any, words: Sequence[str]) -> dict[str, Any]:
    """Return the entry of a run's summary: the numbers, a row a class, and the confusion matrix; `words` are the classes' names."""
    numbers, words = [str(c) for c in range(len(found.examples))], list(words)
    words = numbers if found.confusion is None else words + numbers[len(words) :]
    columns = {"classes": words, "examples": found.examples, "recall": found.recall, "precision": found.precision, "auc": found.auc}
    columns |= {} if found.confusion is None else {"confusion": found.confusion}
    return numbers_of(found, test) | plain({name: np.asarray(x).tolist() for name, x in columns.items()})


@partial(Compiled, parts=1)
def _scores(loss_fn, params, data):
    """Compile `class_scores` once for each `loss_fn`."""
    return class_scores(loss_fn, params, data)
