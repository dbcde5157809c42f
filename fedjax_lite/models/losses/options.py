"""The choices that a supervised loss is made of, and which of them go together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Number, Tree
from fedjax_lite.models.model import Model, leaf_of, outputs_of
from fedjax_lite.refuse import a_share, is_count, positive

LOSSES = ("softmax", "squared", "binary", "multilabel")
SIGMOID = ("binary", "multilabel")


class Options(NamedTuple):
    """What a supervised loss is made of; the arguments of `fl.models.supervised`."""

    model: Model
    loss: str
    target: str
    ignore: int | None
    mean: str
    top: Sequence[int]
    class_weights: Any  # [classes], or None
    label_smoothing: Number
    focal: Number
    class_counts: Any  # [classes], or [population, classes] with a row a client, or None


def checked(options: Options) -> Options:
    """Refuse an unknown loss, and choices that it has no use for; return the others, lists as arrays.

    Raises:
        ValueError: naming the argument.
    """
    loss = options.loss
    if loss not in LOSSES:
        raise ValueError(f"supervised: loss must be one of {', '.join(map(repr, LOSSES))}, got {loss!r}")
    if options.ignore is not None and loss == "squared":
        raise ValueError(f'supervised: ignore={options.ignore} is a label, so it needs loss="softmax" or another of classes, got {loss!r}')
    if options.mean not in ("sequences", "tokens") or (options.mean != "sequences" and loss == "squared"):
        raise ValueError(f'supervised: mean must be "sequences", or "tokens" where loss="softmax", got {options.mean!r} and {loss!r}')
    if not isinstance(options.top, Sequence) or not all(is_count(k, 2) for k in options.top) or len(set(options.top)) < len(options.top):
        raise ValueError(f"supervised: top must be a list of different whole numbers of at least 2, such as [5], got {options.top!r}")
    a_share("supervised", "label_smoothing", options.label_smoothing, "[0, 1)")
    positive("supervised", "focal", options.focal, or_zero=True)
    given = {name: value for name, value in options._asdict().items() if name in _FOR and not _is_off(value)}
    for name in given:
        if loss not in _FOR[name]:
            raise ValueError(f"supervised: {name} needs loss={' or '.join(map(repr, _FOR[name]))}, got {loss!r}: leave it out")
    alone = [name for name in given if name in ("label_smoothing", "focal", "class_counts")]
    if len(alone) > 1:
        raise ValueError(f"supervised: {' and '.join(alone)} each change the same term of the loss, in papers of their own: give one")
    weights, counts = _numbers(options.class_weights, "class_weights", (1,)), _numbers(options.class_counts, "class_counts", (1, 2))
    if loss == "binary" and weights is not None and len(weights) != 2:
        raise ValueError(f"supervised: class_weights must be two, of the labels 0 and 1, got {len(weights)}")
    return options._replace(class_weights=weights, class_counts=counts)


# A choice beside the loss, and the losses that have a use for it.
_FOR = {
    "top": ("softmax",),
    "class_weights": ("softmax", *SIGMOID),
    "label_smoothing": ("softmax", *SIGMOID),
    "focal": ("softmax", *SIGMOID),
    "class_counts": ("softmax",),
}


def _is_off(value: Any) -> bool:
    """Return whether a choice is left at the value that changes nothing."""
    return value is None or (isinstance(value, int | float) and value == 0) or (isinstance(value, Sequence) and not len(value))


def _numbers(values: Any, name: str, ranks: tuple[int, ...]) -> Any:
    """Return a list of numbers as an array; refuse numbers below 0, and arrays of other ranks. An array of jax passes as it is."""
    if values is None:
        return None
    if isinstance(values, jax.Array):
        found: Any = values
    else:
        try:
            found = np.asarray(values, np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"supervised: {name} must be a list of numbers, one a class, got {values!r}") from None
        if not (np.isfinite(found) & (found >= 0)).all():
            raise ValueError(f"supervised: {name} must be finite and not negative, got {values!r}")
    if found.ndim not in ranks or not found.size:
        kinds = "[classes]" if ranks == (1,) else "[classes] or [population, classes]"
        raise ValueError(f"supervised: {name} must be an array {kinds}, got the shape {list(found.shape)}")
    return found


def ask(options: Options, params: Tree, batch: Tree, key: Any, mask: dict[str, Any]) -> tuple[Any, ...]:
    """Ask the batch for its labels, and the model for its outputs and, where they change, its running statistics."""
    labels = jnp.asarray(leaf_of(batch, "supervised: target", options.target))
    return labels, *outputs_of(options.model, params, batch, key, **mask)


def for_classes(options: Options, name: str, classes: int) -> Any:
    """Return the numbers of a choice, one a class.

    Raises:
        ValueError: for more or fewer than the model has classes.
    """
    values = getattr(options, name)
    if values.shape[-1] != classes:
        raise ValueError(f"supervised: {name} has {values.shape[-1]} numbers, the model {classes} classes: give one for each")
    return values
