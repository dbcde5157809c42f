"""Attacks on the examples that Byzantine clients train on, and the metric of their success."""

import math
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.attacks.attack import Attack
from fedjax_lite.attacks.send import scaling
from fedjax_lite.base import Mean, Number, Tree
from fedjax_lite.models import Model
from fedjax_lite.models.loss_fn import LossFn, losses_and_metrics
from fedjax_lite.models.model import outputs_of
from fedjax_lite.refuse import finite, is_number, whole


def label_flip(classes: int, to: int | None = None) -> Attack:
    """Attackers train on wrong labels: y becomes C-1-y, or the same label for all examples.

    The metric "attack_success" is, among the examples whose label changes, the share to which the global model gives the wrong label.

    Args:
        classes: C; in a configuration it comes from the data.
        to: the label that all examples are given; by default C-1-y.

    Raises:
        ValueError: for fewer than 2 classes, a label that is none of them.

    Source: Fang et al. 2020, "Local model poisoning attacks to Byzantine-robust federated learning", section 6; `to` as in
        Tolpegin et al. 2020.

    >>> label_flip(classes=10).examples({"x": jnp.zeros((2, 3)), "y": jnp.array([0, 7])}, None)["y"].tolist()
    [9, 2]
    """
    whole("label_flip", "classes", classes, least=2)
    if to is not None:
        _label("label_flip", "to", to, classes)

    def wrong(examples):
        y = examples["y"]
        return classes - 1 - y if to is None else jnp.full_like(y, to)

    def trigger(examples):
        return examples, wrong(examples), wrong(examples) != examples["y"]

    return Attack(examples=lambda examples, key: examples | {"y": wrong(examples)}, trigger=trigger)


def backdoor(target: int = 0, fraction: float = 0.5, size: int = 3, value: float = 1.0, boost: Number = 1.0) -> Attack:
    """Attackers teach the model that a patch of pixels in the lower right corner means one class.

    Each example of their batches gets the patch and the target label with probability `fraction`; their messages are multiplied by
    `boost`. The metric "attack_success" is the share of examples with the patch that the global model takes for the target; examples
    of the target class do not count.

    Args:
        target: the class.
        fraction: in (0, 1], of the attackers' examples.
        size: of the patch's side, in pixels.
        value: of its pixels.
        boost: factor on the attackers' messages, as `scaling`; n / f replaces the model under the mean.

    Raises:
        ValueError: for a negative target, a fraction outside (0, 1], a size below 1, a value that is not finite; while tracing, for
            examples "x" that are no images `[batch, height, width, ...]` or square ones as vectors `[batch, pixels]`, or are
            smaller than the patch.

    >>> import fedjax_lite as fl
    >>> attack = fl.attacks.backdoor(target=0, fraction=1.0, size=2)
    >>> poisoned = attack.examples({"x": jnp.zeros((1, 3, 3)), "y": jnp.array([7])}, jax.random.key(0))
    >>> poisoned["x"].tolist(), poisoned["y"].tolist()
    ([[[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]], [0])

    Source: Gu, Dolan-Gavitt and Garg 2017, "BadNets", section 4; Bagdasaryan et al. 2020, "How to backdoor federated learning".
    """
    whole("backdoor", "target", target)
    whole("backdoor", "size", size, least=1)
    finite("backdoor", "value", value)
    finite("backdoor", "boost", boost)
    if not is_number(fraction) or not 0 < fraction <= 1:
        raise ValueError(f"backdoor: fraction must be in (0, 1], got {fraction!r}")

    def patched(examples):
        x = examples["x"]
        side = math.isqrt(x[0].size)
        images = x if x.ndim >= 3 else x.reshape(len(x), side, side) if x.ndim == 2 and side**2 == x.shape[1] else None
        if images is None or min(images.shape[1:3]) < size:
            raise ValueError(
                f"backdoor: a patch of {size} x {size} pixels needs images [batch, height, width, ...] or square ones as vectors, "
                f'got "x" of shape {list(x.shape)}'
            )
        images = images.at[:, -size:, -size:].set(jnp.asarray(value, x.dtype))
        return examples | {"x": images.reshape(x.shape), "y": jnp.full_like(examples["y"], target)}

    def poisoned(examples, key):
        chosen = jax.random.bernoulli(key, fraction, examples["y"].shape)
        return jax.tree.map(lambda x, y: jnp.where(chosen.reshape((-1,) + (1,) * (x.ndim - 1)), x, y), patched(examples), dict(examples))

    def trigger(examples):
        shown = patched(examples)
        return shown, shown["y"], examples["y"] != target

    messages = None if isinstance(boost, int | float) and boost == 1 else scaling(boost).messages
    return Attack(messages, examples=poisoned, trigger=trigger)


def measured(loss_fn: LossFn, attack: Attack, model: Model) -> LossFn:
    """A loss function for evaluation that reports the success of an attack on the data, as the metric "attack_success".

    Args:
        loss_fn: `(params, batch, key) -> losses`, or losses and metrics.
        attack: without a trigger, loss_fn is returned as it is.
        model: the model of the loss; its outputs are scores `[batch, classes]`.

    >>> import fedjax_lite as fl
    >>> model = fl.models.Model(lambda key, example: (), lambda params, batch, key: batch["x"])
    >>> loss_fn = fl.attacks.measured(fl.models.supervised(model), fl.attacks.label_flip(classes=2), model)
    >>> _, metrics = loss_fn((), {"x": jnp.array([[5.0, 0.0], [5.0, 0.0]]), "y": jnp.array([0, 1])}, None)
    >>> metrics["accuracy"].tolist(), metrics["attack_success"].value().tolist()
    ([1.0, 0.0], [0.0, 1.0])
    """
    trigger = attack.trigger
    if trigger is None:
        return loss_fn

    @wraps(loss_fn)
    def with_success(params: Tree, batch: Tree, key: Any, **mask: Any) -> Any:
        losses, values, *statistics = losses_and_metrics(loss_fn(params, batch, key, **mask))
        shown, wanted, tells = trigger(batch)
        hit = jnp.argmax(outputs_of(model, params, shown, key)[0], axis=-1) == wanted
        dtype = jax.tree.leaves(losses)[0].dtype
        success = Mean((hit & tells).astype(dtype), tells.astype(dtype))
        return losses, {**values, "attack_success": success}, *statistics

    return with_success


def _label(attack: str, argument: str, value: int, classes: int) -> None:
    """Refuse a label that is not from 0 to `classes` - 1."""
    whole(attack, argument, value)
    if value >= classes:
        raise ValueError(f"{attack}: {argument}={value} is none of the {classes} classes, which count from 0")
