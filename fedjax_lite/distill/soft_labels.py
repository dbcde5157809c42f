"""From a client's model to its soft labels of public examples, and from those of a cohort to one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.base import Aggregator, Client, Tree
from fedjax_lite.distill.ensemble import Ensemble
from fedjax_lite.distill.student import Apply
from fedjax_lite.uplink.ledger import Sent, dense_bits, sent

__all__ = ["Knowledge", "Lesson", "pooled", "soft_labels"]


class Measured(NamedTuple):
    """What a client's model says of the examples it is measured on; a simulation's, it doesn't travel."""

    said: Tree
    accuracy: Float[Array, "*clients"]


class Knowledge(NamedTuple):
    """A client's message in distillation."""

    soft: Tree  # what it says of the public examples
    model: Tree = ()  # the change of its model, where that travels
    measured: Any = ()


class Lesson(NamedTuple):
    """The cohort's messages reduced to one."""

    target: Float[Array, "examples classes"]  # soft labels of the public examples
    model: Tree = ()  # the mean change of the models


class _State(NamedTuple):
    then: Tree
    sent: Sent


def soft_labels(
    apply: Apply,
    examples: Tree,
    ensemble: Ensemble,
    *,
    model: bool = False,
    then: optax.GradientTransformation | None = None,
    measure: Tree = None,
    target: str = "y",
) -> optax.GradientTransformationExtraArgs:
    """An uplink: instead of the change of its model a client uploads what its model says of public examples.

    Args:
        apply: `(params, batch, key) -> logits [batch, classes]`, such as a `Model`'s.
        examples: public, without need of labels, leaves `[examples, ...]`; the same for all clients.
        ensemble: what of the logits is said, for instance `fl.distill.mean_logits()`.
        model: the model travels, and the server makes the soft labels of it (FedDF), which then cost no bits. What stands before this in
            a chain compresses it.
        then: an uplink for the soft labels, where they travel: `fl.uplink.local_gaussian`, `fl.uplink.uniform`.
        measure: labelled examples on which models and their ensemble are measured by `pooled`; they cost no bits.
        target: the leaf of these that is their label.

    Returns:
        An optax transformation of one message into `Knowledge`; `update` needs the keyword `client`, and params, the model as received.

    Raises:
        ValueError: for a model that travels and an uplink of soft labels too.
    """
    if model and then is not None:
        raise ValueError("soft_labels: with model=True soft labels are made at the server and not sent, so `then` has nothing to change")
    onward = optax.with_extra_args_support(optax.identity() if then is None else then)

    def said(params, client):
        return ensemble.say(apply(params, examples, None), client)

    def init(message):
        one = Client(jnp.int32(0), jax.random.key(0), jnp.int32(1), jnp.int32(0), jnp.ones(()))
        shape = tree.zeros(jax.eval_shape(said, message, one))
        return _State(onward.init(shape), Sent(*jnp.zeros(3, jnp.float32)))

    def update(updates, state, params=None, *, client=None, **extra):
        if client is None or params is None:
            raise ValueError("soft_labels: give update params and the keyword client, as fl.federate does")
        taught = optax.apply_updates(params, updates)
        soft, then_state = onward.update(said(taught, client), state.then, client=client, **extra)
        measured: Any = ()
        if measure is not None:
            logits = apply(taught, measure, None)
            measured = Measured(ensemble.say(logits, client), jnp.mean(jnp.argmax(logits, axis=-1) == measure[target], dtype=jnp.float32))
        bits = sent(then_state, soft)
        whole = jnp.float32(dense_bits((soft, measured)))
        nothing = jnp.zeros_like(whole)
        cost = Sent(nothing, nothing, whole) if model else Sent(bits.payload, bits.side, whole)
        return Knowledge(soft, updates if model else (), measured), _State(then_state, cost)

    return optax.GradientTransformationExtraArgs(init, update)


def pooled(ensemble: Ensemble, soft: Aggregator, model: Aggregator | None = None, labels: Any = None) -> Aggregator:
    """An aggregator of `Knowledge`: one rule for soft labels, and one for models where they travel.

    Args:
        ensemble: what is made of the aggregate, the same as in `soft_labels`.
        soft: any aggregator, for the soft labels; a robust one, or `fl.aggregators.dp_mean`.
        model: any aggregator, for the changes of the models.
        labels: of the examples that `soft_labels` measures on.

    Returns:
        An aggregator whose aggregate is a `Lesson`, with the metrics of both, and "teacher_accuracy" (the mean over clients) and
        "ensemble_accuracy" where there are labels. It adds if both do.

    Raises:
        ValueError: for a private rule for soft labels beside models that travel, which would give away what it hides.
    """
    if model is not None and soft.privacy is not None:
        raise ValueError("pooled: soft labels can't be private where models travel: leave model out, or make its aggregator private alone")
    rules = {"soft": soft} | ({} if model is None else {"model": model}) | ({} if labels is None else {"measured": soft})
    additive = all(rule.additive for rule in rules.values())

    def part_of(messages, name):
        return messages.measured.said if name == "measured" else getattr(messages, name)

    def init(message):
        return {name: rule.init(part_of(message, name)) for name, rule in rules.items()}

    def parts(messages, cohort, state):
        found = {name: rule.collect(part_of(messages, name), cohort, state[name]) for name, rule in rules.items()}
        if labels is None:
            return found, ()
        present = cohort.weight > 0
        return found, (jnp.sum(jnp.where(present, messages.measured.accuracy, 0)), jnp.sum(present, dtype=jnp.float32))

    def collect(messages, cohort, state):
        return parts(messages, cohort, state) if additive else (messages, cohort)

    def finish(part, state, key):
        found, scores = part if additive else parts(part[0], part[1], state)
        aggregates: dict[str, Any] = {}
        after, metrics = {}, {}  # type: dict[str, Any], dict[str, Array]
        for i, (name, rule) in enumerate(rules.items()):
            aggregates[name], after[name], told = rule.finish(found[name], state[name], jax.random.fold_in(key, i))
            metrics |= told if name == "soft" else {f"{name}_{metric}": value for metric, value in told.items() if name == "model"}
        if labels is not None:
            right = jnp.argmax(ensemble.target(aggregates["measured"]), axis=-1) == jnp.asarray(labels)
            metrics["teacher_accuracy"] = scores[0] / jnp.maximum(scores[1], 1)
            metrics["ensemble_accuracy"] = jnp.mean(right, dtype=jnp.float32)
        return Lesson(ensemble.target(aggregates["soft"]), aggregates.get("model", ())), after, metrics

    return Aggregator(init, collect, finish, additive, soft.sums_only, soft.privacy)
