"""From a model to the loss function that client work and evaluation take."""

import jax.numpy as jnp
import optax

from fedjax_lite.models.networks import Model
from fedjax_lite.work import LossFn


def supervised(model: Model, loss: str = "softmax", *, target: str = "y") -> LossFn:
    """The per-example loss of a model on labelled examples.

    Args:
        model: its outputs are logits `[batch, classes]` for "softmax", predictions `[batch, outputs]` for "squared".
        loss: "softmax", cross-entropy with integer labels, which also reports "accuracy"; "squared", half of the squared
            distance to targets `[batch]` or `[batch, outputs]`.
        target: the leaf of an example that is its label.

    Returns:
        `(params, batch, key) -> losses [batch]`, or `(losses, {"accuracy": [batch]})`; key None evaluates (no dropout).
        A label outside the classes gives NaN.
    """
    if loss not in ("softmax", "squared"):
        raise ValueError(f'supervised: loss must be "softmax" or "squared", got {loss!r}')

    def softmax(params, batch, key):
        logits, labels = model.apply(params, batch, key), batch[target]
        inside = jnp.where(labels < 0, logits.shape[-1], labels)  # a negative label would count from the end
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, inside)
        return losses, {"accuracy": (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)}

    def squared(params, batch, key):
        predictions, targets = model.apply(params, batch, key), batch[target]
        if predictions.size != targets.size:
            raise ValueError(
                f"supervised: {predictions.shape[-1]} outputs for targets of shape {targets.shape[1:]}: make the model's outputs match"
            )
        difference = predictions.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        return 0.5 * jnp.sum(difference**2, axis=-1)

    return softmax if loss == "softmax" else squared
