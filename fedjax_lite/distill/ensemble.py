"""Ensembles turn the outputs of many models into one soft label an example."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.base import Client, Number, Tree
from fedjax_lite.refuse import positive

__all__ = ["Ensemble", "by_accuracy", "by_certainty", "by_class_counts", "mean_logits", "mean_probabilities", "sharpened"]

# One model's logits [examples, classes], its client -> its weight: a scalar, [examples], or [examples or 1, classes]
Weigh = Callable[[Float[Array, "examples classes"], Client], Array]


class Ensemble(NamedTuple):
    """Two functions with an aggregator between: from a model's logits to its message, and from the aggregate to soft labels."""

    say: Callable[[Float[Array, "examples classes"], Client], Tree]  # logits of one model, its client -> its message
    target: Callable[[Tree], Float[Array, "examples classes"]]  # aggregate -> probabilities; a row of zeros where all weights are 0


def mean_logits(temperature: Number = 1.0, weigh: Weigh | None = None) -> Ensemble:
    r"""Models send logits; the soft label is the softmax of their aggregate.

    q = softmax(z / T),  z = sum_k w_k z_k / sum_k w_k  (of a plain mean; another aggregator puts its own in place of the sums).

    Args:
        temperature: T > 0; above 1 it makes soft labels softer. Give the student the same.
        weigh: the weight of each model, for instance `fl.distill.by_certainty()`; needs an aggregator that averages. A class in which
            all models have weight 0 has probability 0.

    >>> ensemble, client = mean_logits(), Client(0, None, 1, 0, 1.0)
    >>> said = [ensemble.say(jnp.array(z), client) for z in ([[2.0, 0.0]], [[0.0, 0.0]])]
    >>> [round(float(q), 3) for q in ensemble.target((said[0] + said[1]) / 2)[0]]
    [0.731, 0.269]

    Source: Lin et al. 2020, "Ensemble distillation for robust model fusion in federated learning", equation 1 (AVGLOGITS).
    """
    positive("mean_logits", "temperature", temperature)

    def target(z):
        return jax.nn.softmax(z / temperature, axis=-1)

    return _weighted(Ensemble(lambda logits, client: logits, target), weigh, absent=-jnp.inf)


def mean_probabilities(temperature: Number = 1.0, weigh: Weigh | None = None) -> Ensemble:
    r"""Models send probabilities; the soft label is their aggregate.

    q = p / sum_c p_c,  p = sum_k w_k softmax(z_k / T) / sum_k w_k.

    Args:
        temperature, weigh: as in `mean_logits`. The sum over classes is 1 already for a plain mean, and not for a median.

    >>> ensemble, client = mean_probabilities(), Client(0, None, 1, 0, 1.0)
    >>> ensemble.target(ensemble.say(jnp.array([[0.0, 0.0]]), client)).tolist()
    [[0.5, 0.5]]

    Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    positive("mean_probabilities", "temperature", temperature)
    return _weighted(Ensemble(lambda logits, client: jax.nn.softmax(logits / temperature, axis=-1), normalised), weigh, absent=0.0)


def sharpened(temperature: Number = 0.1) -> Ensemble:
    r"""Models send probabilities; the soft label is a sharpened aggregate (entropy reduction aggregation).

    q = softmax(p / T),  p = 1/K sum_k softmax(z_k).

    Args:
        temperature: T in (0, 1]; the lower, the sharper. 0.1 in the paper.

    Raises:
        ValueError: for a temperature above 1, which would blur the soft labels.

    >>> [round(float(q), 3) for q in sharpened().target(jnp.array([[0.6, 0.4]]))[0]]
    [0.881, 0.119]

    Source: Itahara et al. 2021, "Distillation-based semi-supervised federated learning", equation 12 (DS-FL).
    """
    positive("sharpened", "temperature", temperature)
    if isinstance(temperature, int | float) and temperature > 1:
        raise ValueError(f"sharpened: temperature must be at most 1, or it blurs the soft labels, got {temperature}")
    return Ensemble(lambda logits, client: jax.nn.softmax(logits, axis=-1), lambda p: jax.nn.softmax(p / temperature, axis=-1))


def by_certainty() -> Weigh:
    r"""Weigh a model by its certainty about each example: w = 1 - H(softmax(z)) / log C, from 0 (uniform) to 1.

    >>> by_certainty()(jnp.array([[0.0, 0.0], [100.0, 0.0]]), None).tolist()
    [0.0, 1.0]
    """

    def weigh(logits, client):
        del client
        p = jax.nn.softmax(logits, axis=-1)
        entropy = -jnp.sum(p * jax.nn.log_softmax(logits, axis=-1), axis=-1)
        return jnp.clip(1 - entropy / np.log(logits.shape[-1]), 0, 1)

    return weigh


def by_class_counts(counts: Any) -> Weigh:
    """Weigh a model in each class by the number of its client's examples of that class, 0 for a class without examples.

    Args:
        counts: `[population, classes]`, such as `fl.data.class_counts(data)`.

    Raises:
        ValueError: for counts that are negative, not finite, or all 0.

    >>> by_class_counts([[3, 0], [1, 1]])(None, Client(0, None, 4, 0, 1.0)).tolist()
    [[3.0, 0.0]]
    """
    traced = isinstance(counts, jax.core.Tracer)  # in a study each seed has its own data
    table = counts.astype(jnp.float32) if traced else np.asarray(counts, np.float32)
    if table.ndim != 2 or not traced and (not np.isfinite(table).all() or (table < 0).any() or not table.any()):
        raise ValueError(f"by_class_counts: counts must be [population, classes], not negative and not all 0, got {counts!r}")
    return lambda logits, client: jnp.take(jnp.asarray(table), client.id, axis=0, mode="clip")[None]


def by_accuracy(labels: Any, power: Number = 1.0) -> Weigh:
    """Weigh a model by the share of labelled public examples that it gets right.

    Args:
        labels: `[examples]`, a class for each public example; below 0 for an example without a class.
        power: the exponent of the share.

    Raises:
        ValueError: without a single label; when called, for another number of logits than of labels, for instance with `each_round`.

    >>> by_accuracy([0, 1, -1])(jnp.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), None).tolist()
    0.5
    """
    traced = isinstance(labels, jax.core.Tracer)
    known = labels if traced else np.asarray(labels)
    if known.ndim != 1 or not traced and not (known >= 0).any():
        raise ValueError(f"by_accuracy: labels must be [examples], with a class from 0 for one at least, got {labels!r}")

    def weigh(logits, client):
        del client
        if logits.shape[0] != known.shape[0]:
            raise ValueError(
                f"by_accuracy: {known.shape[0]} labels, and a model speaks of {logits.shape[0]} examples: labels must be those of a "
                "round's examples, so leave each_round out, or weigh otherwise"
            )
        right = (jnp.argmax(logits, axis=-1) == known) & (known >= 0)
        return (jnp.sum(right) / (known >= 0).sum()).astype(logits.dtype) ** power

    return weigh


def normalised(p: Float[Array, "examples classes"]) -> Float[Array, "examples classes"]:
    """Divide each row, with negative numbers as 0, by its sum; a row of zeros stays."""
    p = jnp.maximum(p, 0)
    total = jnp.sum(p, axis=-1, keepdims=True)
    return p / jnp.where(total > 0, total, 1)


class _Weighted(NamedTuple):
    """A message, or a sum of messages, of weighted outputs."""

    total: Float[Array, "examples classes"]
    weight: Float[Array, "rows columns"]  # broadcasts against the total


def _weighted(plain: Ensemble, weigh: Weigh | None, absent: float) -> Ensemble:
    """Let models send outputs times weights, and the weights; a class whose weights are all 0 gets the output `absent`."""
    if weigh is None:
        return plain

    def say(logits, client):
        weight = jnp.asarray(weigh(logits, client), logits.dtype)
        weight = weight.reshape((-1, 1) if weight.ndim < 2 else weight.shape)
        return _Weighted(plain.say(logits, client) * weight, weight)

    def target(aggregate):
        total, weight = aggregate
        here = jnp.broadcast_to(weight > 0, total.shape)
        value = jnp.where(here, total / jnp.where(weight > 0, weight, 1), absent)
        q = plain.target(jnp.where(here.any(axis=-1, keepdims=True), value, 0))
        return jnp.where(here.any(axis=-1, keepdims=True), q, 0)

    return Ensemble(say, target)
