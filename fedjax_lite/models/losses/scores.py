"""How sure a model is of each class, for evaluations that need the scores of all examples at once."""

import jax
import jax.numpy as jnp

from fedjax_lite.base import Tree
from fedjax_lite.models.losses.options import SIGMOID, Options, ask
from fedjax_lite.models.losses.positions import wide
from fedjax_lite.models.losses.sigmoid import fitted


def scores_of(options: Options, params: Tree, batch: Tree) -> tuple[jax.Array, jax.Array]:
    """Return the log-odds of each class, which stay apart where probabilities round to 1, and the labels.

    Returns:
        Scores `[batch, classes]` with labels `[batch]` for "softmax", `[batch, 1]` with `[batch]` for "binary", and `[batch, classes]` with
        `[batch, classes]` for "multilabel"; an ignored label is -1.

    Raises:
        ValueError: for a loss without classes, and for sequences, whose positions are not examples.
    """
    if options.loss == "squared":
        raise ValueError('classification: the loss is "squared", of numbers: evaluate a loss of classes')
    labels, logits = ask(options, params, batch, None, {})
    if options.loss in SIGMOID:
        logits = fitted(options, labels, logits)
    if labels.ndim != (2 if options.loss == "multilabel" else 1):
        raise ValueError(f"classification: labels have the shape {list(labels.shape[1:])} an example: it is for one label an example")
    scores = wide(logits)
    if options.loss == "softmax":
        log_p, best = jax.nn.log_softmax(scores), jax.nn.one_hot(jnp.argmax(scores, axis=-1), scores.shape[-1], dtype=bool)
        log_rest = jax.nn.logsumexp(jnp.where(best, -jnp.inf, log_p), axis=-1, keepdims=True)  # 1 - p of the best has no digits left
        scores = log_p - jnp.where(best, log_rest, jnp.log1p(-jnp.exp(log_p)))
    labels = labels.astype(jnp.int32)
    labels = labels if options.ignore is None else jnp.where(labels == options.ignore, -1, labels)
    return scores[:, None] if options.loss == "binary" else scores, labels
