"""From a model to the loss function that client work and evaluation take."""

import jax
import jax.numpy as jnp

from fedjax_lite.models.networks import Model
from fedjax_lite.work import LossFn


def supervised(model: Model, loss: str = "softmax", *, target: str = "y", ignore: int | None = None) -> LossFn:
    """The per-example loss of a model on labelled examples.

    Args:
        model: its outputs are logits `[batch, ..., classes]` for "softmax", predictions `[batch, outputs]` for "squared".
        loss: "softmax", cross-entropy with integer labels `[batch, ...]`, which also reports "accuracy"; of a sequence, the mean
            over its positions. "squared", half of the squared distance to targets `[batch]` or `[batch, outputs]`.
        target: the leaf of an example that is its label.
        ignore: a label whose positions do not count, for instance a sequence's padding.

    Returns:
        `(params, batch, key) -> losses [batch]`, or `(losses, {"accuracy": [batch]})`; key None evaluates (no dropout).
        A label outside the classes gives NaN.
    """
    if loss not in ("softmax", "squared"):
        raise ValueError(f'supervised: loss must be "softmax" or "squared", got {loss!r}')
    if ignore is not None and loss != "softmax":
        raise ValueError(f'supervised: ignore={ignore} is a label, so it needs loss="softmax", got {loss!r}')

    def softmax(params, batch, key):
        logits, labels = model.apply(params, batch, key), batch[target]
        if logits.shape[:-1] != labels.shape:
            raise ValueError(f"supervised: logits {logits.shape} for labels {labels.shape}: each label needs its row of logits")
        classes = logits.shape[-1]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        chosen = jax.nn.one_hot(labels, classes, dtype=bool)  # not a gather: its gradient would be a scatter, slow everywhere
        losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
        losses = jnp.where((labels >= 0) & (labels < classes), losses, jnp.nan)
        hits = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
        counts = jnp.ones(labels.shape, bool) if ignore is None else labels != ignore
        return _mean_of_each(losses, counts), {"accuracy": _mean_of_each(hits, counts)}

    def squared(params, batch, key):
        predictions, targets = model.apply(params, batch, key), batch[target]
        if predictions.size != targets.size:
            raise ValueError(
                f"supervised: {predictions.shape[-1]} outputs for targets of shape {targets.shape[1:]}: make the model's outputs match"
            )
        difference = predictions.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        return 0.5 * jnp.sum(difference**2, axis=-1)

    return softmax if loss == "softmax" else squared


def _mean_of_each(values: jax.Array, counts: jax.Array) -> jax.Array:
    """The mean of each example's counted positions, `[batch]`; 0 where it has none."""
    values = jnp.where(counts, values, 0).reshape(len(values), -1)
    number = jnp.sum(counts.reshape(len(values), -1), axis=-1)
    return jnp.sum(values, axis=-1) / jnp.maximum(number, 1).astype(values.dtype)


# The loss of logits that are there already: a model whose parameters are its outputs.
of_logits = supervised(Model(lambda key, example: (), lambda logits, batch, key: logits))
