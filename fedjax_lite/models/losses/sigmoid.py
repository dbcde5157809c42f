"""Cross-entropy of labels that are 0 or 1: one an example, or one of each class."""

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Mean, Tree
from fedjax_lite.models.losses.options import Options, ask, for_classes
from fedjax_lite.models.losses.positions import of_examples, wide


def sigmoid(options: Options, params: Tree, batch: Tree, key: Any, client: Any = None, **mask: Any) -> tuple[Any, ...]:
    """Take the cross-entropy of a batch's labels 0 and 1, and whether the model has them right."""
    del client
    labels, logits, *statistics = ask(options, params, batch, key, mask)
    logits = wide(fitted(options, labels, logits))
    positive = labels == 1
    losses = jax.nn.softplus(logits) - jnp.where(positive, logits, 0) if key is None else _trained(options, logits, positive)
    losses = jnp.where(positive | (labels == 0), losses, jnp.nan)
    counts = None if options.ignore is None else labels != options.ignore
    right = (logits > 0) == positive
    metrics = {"accuracy": of_examples(right.astype(logits.dtype), counts, options.mean)}
    if options.loss == "multilabel":
        metrics["exact_match"] = _all_right(right, counts, logits.dtype)
    return of_examples(losses, counts, options.mean), metrics, *statistics


def fitted(options: Options, labels: jax.Array, logits: jax.Array) -> jax.Array:
    """Return logits in the shape of the labels.

    Raises:
        ValueError: with both shapes.
    """
    if options.loss == "binary" and logits.shape == (*labels.shape, 1):
        return logits[..., 0]
    if logits.shape != labels.shape or (options.loss == "multilabel" and labels.ndim < 2):
        wanted = "one output for each label" if options.loss == "binary" else "labels [batch, classes], and an output for each class"
        raise ValueError(f'supervised: outputs {logits.shape} for labels {labels.shape}: "{options.loss}" needs {wanted}')
    return logits


def _trained(options: Options, logits: jax.Array, positive: jax.Array) -> jax.Array:
    """Take the loss that is trained of each label: -q log p - (1 - q) log(1 - p), or what the options make of it."""
    if not (isinstance(options.focal, int | float) and options.focal == 0):
        toward = jnp.where(positive, logits, -logits)
        losses = jnp.exp(options.focal * jax.nn.log_sigmoid(-toward)) * jax.nn.softplus(-toward)
    else:
        e = options.label_smoothing
        losses = jax.nn.softplus(logits) - ((1 - e) * positive.astype(logits.dtype) + e / 2) * logits
    if options.class_weights is None:
        return losses
    if options.loss == "binary":
        return losses * jnp.where(positive, options.class_weights[1], options.class_weights[0]).astype(losses.dtype)
    weights = jnp.asarray(for_classes(options, "class_weights", logits.shape[-1]), losses.dtype)
    return losses * jnp.broadcast_to(weights, losses.shape)


def _all_right(right: jax.Array, counts: jax.Array | None, dtype: Any) -> Any:
    """Return whether all counted labels of an example are right, as a `Mean` where some examples have none."""
    axes = tuple(range(1, right.ndim))
    if counts is None:
        return jnp.all(right, axis=axes).astype(dtype)
    there = jnp.any(counts, axis=axes)
    return Mean((jnp.all(right | ~counts, axis=axes) & there).astype(dtype), there.astype(dtype))
