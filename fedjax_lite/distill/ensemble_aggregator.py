"""The soft labels of a cohort, and its models, reduced to a lesson for the student: an aggregator."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.base import Aggregator, Client, Key, Tree
from fedjax_lite.distill.ensemble import Ensemble
from fedjax_lite.distill.public_set import Public
from fedjax_lite.distill.soft_labels import Knowledge

__all__ = ["Lesson", "ensemble_aggregator"]


class Lesson(NamedTuple):
    """The cohort's messages reduced to one."""

    target: Float[Array, "examples classes"]  # soft labels of the public examples
    model: Tree = ()  # the mean change of the models


class OfFamilies(NamedTuple):
    """The mean change of each family's models, as `flat_model` lays them out."""

    vectors: tuple[Float[Array, " width"], ...]


class _State(NamedTuple):
    soft: Tree
    model: Tree
    round: Any


def ensemble_aggregator(
    ensemble: Ensemble,
    soft: Aggregator,
    model: Aggregator | None = None,
    public: Public | None = None,
    families: Sequence[int] | None = None,
) -> Aggregator:
    """An aggregator of `Knowledge`: one rule for soft labels, and one for models where they travel.

    Args:
        ensemble: what is made of the aggregate, the same as in `soft_labels`.
        soft: any aggregator, for the soft labels; a robust one, or `fl.aggregators.dp_mean`.
        model: any aggregator, for the changes of the models; of families it is applied to each family's.
        public: a `fl.distill.public_set` with labels, for the metric.
        families: how many clients each family has, where models of several travel.

    Returns:
        An aggregator whose aggregate is a `Lesson`. Its metrics are those of `soft`, those of `model` under "model_", and with labels
        "ensemble_accuracy": which part of the public examples the soft labels have right; one of which nobody had a say is not. It adds
        if both rules do.

    Raises:
        ValueError: for a private rule for soft labels beside models that travel, which would give away what it hides.

    >>> import fedjax_lite as fl
    >>> aggregator = fl.distill.ensemble_aggregator(fl.distill.mean_probabilities(), fl.aggregators.mean())
    >>> said, cohort = jnp.array([[[1.0, 0.0]], [[0.5, 0.5]]]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> state = aggregator.init(fl.distill.Knowledge(said[0]))
    >>> part = aggregator.collect(fl.distill.Knowledge(said), cohort, state)
    >>> aggregator.finish(part, state, jax.random.key(0))[0].target.tolist()
    [[0.75, 0.25]]
    """
    if model is not None and soft.privacy is not None:
        raise ValueError("pooled: soft labels can't be private where models travel: leave model out, or take another rule for soft labels")
    additive = soft.additive and (model is None or model.additive)
    models = () if model is None else (model,) if families is None else (model,) * len(families)
    rules = _Rules(ensemble, soft, models, families, public, additive)
    takes = (soft if model is None else model).bits  # beside models soft labels are free
    bits = None if takes is None else lambda message: takes(message.soft if model is None else message.model)
    functions = (partial(_init, rules), partial(_collect, rules), partial(_finish, rules))
    return Aggregator(*functions, additive, soft.sums_only, soft.privacy, bits)


class _Rules(NamedTuple):
    """What the messages are reduced by."""

    ensemble: Ensemble
    soft: Aggregator
    models: tuple[Aggregator, ...]  # one for each family; none where no models travel
    families: Sequence[int] | None  # how many clients each has; None: all are alike
    public: Public | None
    additive: bool


def _init(rules: _Rules, message: Knowledge) -> _State:
    """Begin each rule's state by a message."""
    return _State(rules.soft.init(message.soft), tuple(rule.init(message.model) for rule in rules.models), jnp.int32(0))


def _collect(rules: _Rules, messages: Knowledge, cohort: Client, state: _State) -> Any:
    """Collect the messages by each rule, or keep them and their cohort where some rule does not add."""
    return _parts(rules, messages, cohort, state) if rules.additive else (messages, cohort)


def _parts(rules: _Rules, messages: Knowledge, cohort: Client, state: _State) -> tuple[Tree, tuple[Tree, ...]]:
    """Collect the messages' soft labels, and their models family by family."""
    of_families = enumerate(rules.models)
    models = tuple(rule.collect(messages.model, _members(rules.families, cohort, k), state.model[k]) for k, rule in of_families)
    return rules.soft.collect(messages.soft, cohort, state.soft), models


def _members(families: Sequence[int] | None, cohort: Client, k: int) -> Client:
    """Empty the cohort's slots of all families but the k-th."""
    ends = None if families is None else np.cumsum([0, *families])
    mine = True if ends is None else (cohort.id >= ends[k]) & (cohort.id < ends[k + 1])
    return cohort._replace(weight=jnp.where(mine, cohort.weight, 0))


def _finish(rules: _Rules, part: Any, state: _State, key: Key) -> tuple[Lesson, _State, dict[str, Array]]:
    """Finish each rule, and make a lesson of what the soft labels and models became."""
    of_soft, models = part if rules.additive else _parts(rules, part[0], part[1], state)
    said, soft_state, metrics = rules.soft.finish(of_soft, state.soft, jax.random.fold_in(key, 0))
    found = [rule.finish(models[k], state.model[k], jax.random.fold_in(key, k + 1)) for k, rule in enumerate(rules.models)]
    for k, (_, _, told) in enumerate(found):
        metrics |= {f"model_{name}" if rules.families is None else f"model_{k}_{name}": value for name, value in told.items()}
    changes = tuple(change for change, _, _ in found)
    target = rules.ensemble.target(said)
    metrics |= _accuracy(rules.public, target, state.round)
    lesson = Lesson(target, () if not rules.models else changes[0] if rules.families is None else OfFamilies(changes))
    return lesson, _State(soft_state, tuple(after for _, after, _ in found), state.round + 1), metrics


def _accuracy(public: Public | None, target: Float[Array, "examples classes"], round: Any) -> dict[str, Array]:
    """Measure which part of the public examples of a round the target has right, where their labels are known."""
    if public is None or public.labels is None:
        return {}
    right = (jnp.argmax(target, axis=-1) == public.of(round, public.labels)) & jnp.any(target != 0, axis=-1)
    return {"ensemble_accuracy": jnp.mean(right, dtype=float)}
