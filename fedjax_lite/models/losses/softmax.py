"""Cross-entropy of classes, and what is done to it in training: class weights, smoothed labels, focal and balanced softmax."""

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.base import Number, Tree
from fedjax_lite.metrics import LOG_PERPLEXITY, top_accuracy
from fedjax_lite.models.losses.options import Options, ask, for_classes
from fedjax_lite.models.losses.positions import of_examples, wide


def softmax(options: Options, params: Tree, batch: Tree, key: Any, client: Any = None, **mask: Any) -> tuple[Any, ...]:
    """Take the cross-entropy of a batch's labels, and whether the model has them right."""
    labels, logits, *statistics = ask(options, params, batch, key, mask)
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"supervised: logits {logits.shape} for labels {labels.shape}: each label needs its row of logits")
    classes, given = logits.shape[-1], labels
    labels = labels if jnp.issubdtype(labels.dtype, jnp.integer) else labels.astype(jnp.int32)
    logits = wide(logits)
    chosen = jax.nn.one_hot(labels, classes, dtype=bool)  # not a gather: its gradient would be a scatter, slow everywhere
    losses = _plain(logits, chosen) if key is None else _trained(options, logits, chosen, client)
    known = (labels >= 0) & (labels < classes)
    known = known if labels is given else known & (given == labels)
    losses = jnp.where(known, losses, jnp.nan)
    counts = None if options.ignore is None else labels != options.ignore
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
    metrics = {"accuracy": of_examples(hits, counts, options.mean)}
    for k in options.top:
        metrics[top_accuracy(k)] = of_examples((_rank(logits, chosen) < k).astype(logits.dtype), counts, options.mean)
    found = of_examples(losses, counts, options.mean)
    if options.mean == "tokens" and key is None:
        metrics[LOG_PERPLEXITY] = found
    return found, metrics, *statistics


def _plain(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    """Take -log softmax(z)_y at each position."""
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(chosen, logits, 0), axis=-1)


def _trained(options: Options, logits: jax.Array, chosen: jax.Array, client: Any) -> jax.Array:
    """Take the loss that is trained at each position: plain cross-entropy, or what the options make of it."""
    classes = logits.shape[-1]
    if options.class_counts is not None:
        counts = jnp.asarray(for_classes(options, "class_counts", classes), logits.dtype)
        counts = counts if counts.ndim == 1 else tree.take(counts, client.id)
        losses = _plain(_raised(logits, chosen, counts, 1.0), chosen)
    elif not (isinstance(options.focal, int | float) and options.focal == 0):
        others = jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, logits), axis=-1)  # of 1 - p_y, which has no digits left near 1
        losses = jnp.exp(options.focal * (others - jax.nn.logsumexp(logits, axis=-1))) * _plain(logits, chosen)
    else:
        losses, e = _plain(logits, chosen), options.label_smoothing
        if not (isinstance(e, int | float) and e == 0):
            losses = (1 - e) * losses + e * (jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1))
    if options.class_weights is None:
        return losses
    weights = jnp.asarray(for_classes(options, "class_weights", classes), logits.dtype)
    return losses * jnp.sum(jnp.where(chosen, jnp.broadcast_to(weights, logits.shape), 0), axis=-1)


def _rank(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    """Count the classes before the label's: those with a higher logit, and of equal logits the lower classes, as argmax has it."""
    mine = jnp.sum(jnp.where(chosen, logits, 0), axis=-1, keepdims=True)
    lower = jnp.cumsum(chosen[..., ::-1], axis=-1)[..., ::-1].astype(bool) & ~chosen
    before = (logits > mine) | (logits == mine) & lower | jnp.isnan(logits)
    return jnp.sum(before, axis=-1) + jnp.where(jnp.any(chosen, axis=-1), 0, logits.shape[-1])


def balanced(logits: Any, labels: Any, counts: Any, gamma: Number = 1.0) -> Any:
    """Return logits raised by gamma times the logarithm of the counts; -inf for classes without any, but for the label's own.

    >>> balanced(jnp.zeros((1, 3)), jnp.array([0]), jnp.array([1.0, 0.0, 1.0]), 1.0).tolist()
    [[0.0, -inf, 0.0]]
    """
    return _raised(logits, jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), counts, gamma)


def _raised(logits: Any, chosen: Any, counts: Any, gamma: Number) -> Any:
    """Raise logits as `balanced` does; `chosen` marks the label's own class."""
    counts = jnp.broadcast_to(counts, logits.shape)
    held = (counts > 0) | chosen  # a label's own class too, before it is counted
    return jnp.where(held, logits + gamma * jnp.log(jnp.where(counts > 0, counts, 1)), -jnp.inf)
