"""From a model to the loss function that client work and evaluation take."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Mean, Tree
from fedjax_lite.data.arrays import client_of, shown, stranger
from fedjax_lite.models.loss_fn import LossFn, facts_asked
from fedjax_lite.models.model import Model, leaf_of, outputs_of


def supervised(model: Model, loss: str = "softmax", *, target: str = "y", ignore: int | None = None, mean: str = "sequences") -> LossFn:
    r"""The per-example loss of a model on labelled examples.

    "softmax": -log softmax(z)_y, of a sequence of T positions 1/T sum_t -log softmax(z_t)_{y_t};  "squared": 1/2 |z - y|^2.

    Args:
        model: its outputs are logits `[batch, ..., classes]` for "softmax", predictions `[batch, outputs]` for "squared".
        loss: "softmax", cross-entropy with labels `[batch, ...]`, which also reports "accuracy"; labels are whole numbers from 0 of any
            dtype, or truth values. "squared", half of the squared distance to targets `[batch]` or `[batch, outputs]`.
        target: the leaf of an example that is its label.
        ignore: a label whose positions do not count, for instance a sequence's padding; an example without other positions counts nowhere.
        mean: which mean is taken of sequences. "sequences": of each over its counted positions, then over the sequences, each counting
            once. "tokens": over the counted positions of all sequences together, so that a longer one weighs more.

    Returns:
        `(params, batch, key) -> losses [batch]`, or `(losses, {"accuracy": [batch]})`, each a `fl.Mean` where positions or examples do not
        all count the same; key None evaluates (no dropout). It has an argument `mask` if the model's `apply` has one. A label outside the
        classes, or between two, gives NaN; `fl.run` refuses such data beforehand.

    Raises:
        ValueError: for another loss or mean, `ignore` or `mean` without classes; when called, for examples without the leaf, and
            outputs that do not fit the labels.

    >>> loss = supervised(Model(lambda key, example: (), lambda logits, batch, key: logits), ignore=-1)
    >>> losses, metrics = loss(jnp.zeros((2, 3, 4)), {"y": jnp.array([[0, 1, -1], [-1, -1, -1]])}, None)
    >>> losses.value().tolist(), metrics["accuracy"].value().tolist()
    ([1.3862943649291992, nan], [0.5, nan])
    """
    _check(loss, ignore, mean)
    parts = _Parts(model, loss, target, ignore, mean)
    found = partial(_softmax if loss == "softmax" else _squared, parts)

    def with_mask(params, batch, key, mask=None):
        return found(params, batch, key, mask=mask)

    def loss_fn(params, batch, key):
        return found(params, batch, key)

    made = with_mask if "mask" in facts_asked(model.apply) else loss_fn
    setattr(made, "check", partial(_check_data, parts))
    return made


class _Parts(NamedTuple):
    """What a supervised loss is made of."""

    model: Model
    loss: str
    target: str
    ignore: int | None
    mean: str


def _check(loss: str, ignore: int | None, mean: str) -> None:
    """Refuse an unknown loss, and an ignore or mean that it has no use for."""
    if loss not in ("softmax", "squared"):
        raise ValueError(f'supervised: loss must be "softmax" or "squared", got {loss!r}')
    if ignore is not None and loss != "softmax":
        raise ValueError(f'supervised: ignore={ignore} is a label, so it needs loss="softmax", got {loss!r}')
    if mean not in ("sequences", "tokens") or (mean != "sequences" and loss != "softmax"):
        raise ValueError(f'supervised: mean must be "sequences", or "tokens" where loss="softmax", got {mean!r} and {loss!r}')


def _ask(parts: _Parts, params: Tree, batch: Tree, key: Any, mask: dict[str, Any]) -> tuple[Any, ...]:
    """Ask the batch for its labels, and the model for its outputs and, where they change, its running statistics."""
    labels = leaf_of(batch, "supervised: target", parts.target)
    return labels, *outputs_of(parts.model, params, batch, key, **mask)


def _softmax(parts: _Parts, params: Tree, batch: Tree, key: Any, **mask: Any) -> tuple[Any, ...]:
    """Take the cross-entropy of a batch's labels, and whether the model has them right."""
    labels, logits, *statistics = _ask(parts, params, batch, key, mask)
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"supervised: logits {logits.shape} for labels {labels.shape}: each label needs its row of logits")
    classes, given = logits.shape[-1], labels
    labels = labels if jnp.issubdtype(labels.dtype, jnp.integer) else labels.astype(jnp.int32)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    chosen = jax.nn.one_hot(labels, classes, dtype=bool)  # not a gather: its gradient would be a scatter, slow everywhere
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
    known = (labels >= 0) & (labels < classes)
    known = known if labels is given else known & (given == labels)
    losses = jnp.where(known, losses, jnp.nan)
    hits = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
    counts = None if parts.ignore is None else labels != parts.ignore
    return _of_examples(losses, counts, parts.mean), {"accuracy": _of_examples(hits, counts, parts.mean)}, *statistics


def _squared(parts: _Parts, params: Tree, batch: Tree, key: Any, **mask: Any) -> Any:
    """Take half of the squared distance of the outputs to a batch's targets."""
    targets, predictions, *statistics = _ask(parts, params, batch, key, mask)
    if predictions.size != targets.size:
        raise ValueError(
            f"supervised: {predictions.shape[-1]} outputs for targets of shape {targets.shape[1:]}: make the model's outputs match"
        )
    difference = predictions.reshape(len(targets), -1) - targets.reshape(len(targets), -1)  # of a truth value 1 or 0
    losses = 0.5 * jnp.sum(difference**2, axis=-1)
    return (losses, {}, *statistics) if statistics else losses


def _check_data(parts: _Parts, params: Tree, data: Any, name: str) -> None:
    """Refuse data without the labels, or with one that the model has no output for."""
    labels = leaf_of(data.examples, "supervised: target", parts.target)
    if parts.loss != "softmax" or isinstance(labels, jax.core.Tracer):
        return
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), data.examples)
    classes = jax.eval_shape(lambda params, batch: parts.model.apply(params, batch, None), params, one).shape[-1]
    if strange := stranger(np.asarray(labels), classes, parts.ignore):
        row, number = strange
        raise ValueError(
            f"{name}: label {shown(labels, row)} of client {client_of(data, row)} is out of range: "
            f"the model has {classes} outputs, for labels from 0 to {classes - 1} ({number} such examples)"
        )


def check_labels(loss_fn: Any, params: Tree, data: Any, name: str) -> None:
    """Refuse data whose labels a model has no output for, where a loss function knows its model: `supervised`, and what wraps it.

    Args:
        loss_fn: whose labels they are; None: no loss.
        params: of its model, or their shapes.
        data: a population, in memory or on disk.
        name: of the data.

    Raises:
        ValueError: with the label, its client and the number of outputs.
    """
    check = getattr(loss_fn, "check", None)
    if check is not None:
        check(params, data, name)


def _of_examples(values: jax.Array, counts: jax.Array | None, mean: str) -> Any:
    """Values of all positions as one an example, `[batch]`, or as a `Mean` where they do not all count the same."""
    here = jnp.ones(values.shape, bool) if counts is None else counts
    values = jnp.where(here, values, 0).reshape(len(values), -1)
    total, number = jnp.sum(values, axis=-1), jnp.sum(here.reshape(len(values), -1), axis=-1)
    if mean == "tokens":
        return Mean(total, number.astype(values.dtype))
    each = total / jnp.maximum(number, 1).astype(values.dtype)
    return each if counts is None else Mean(each, (number > 0).astype(values.dtype))


# The loss of logits that are there already: a model whose parameters are its outputs.
of_logits = supervised(Model(lambda key, example: (), lambda logits, batch, key: logits))
