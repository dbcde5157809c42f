"""From a client's model to its soft labels of public examples, and from those of a cohort to one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.base import Aggregator, Client, Tree
from fedjax_lite.distill.ensemble import Ensemble
from fedjax_lite.distill.public import fitting, public_of
from fedjax_lite.distill.student import Apply
from fedjax_lite.uplink.ledger import Sent, dense_bits, sent

__all__ = ["Knowledge", "Lesson", "pooled", "soft_labels"]


class Knowledge(NamedTuple):
    """A client's message in distillation."""

    soft: Tree  # what it says of the public examples
    model: Tree = ()  # the change of its model, where that travels


class Lesson(NamedTuple):
    """The cohort's messages reduced to one."""

    target: Float[Array, "examples classes"]  # soft labels of the public examples
    model: Tree = ()  # the mean change of the models


class _State(NamedTuple):
    then: Tree
    sent: Sent


def soft_labels(
    apply: Apply, public: Tree, ensemble: Ensemble, *, model: bool = False, then: optax.GradientTransformation | None = None
) -> optax.GradientTransformationExtraArgs:
    """An uplink: instead of the change of its model a client uploads what its model says of public examples.

    Args:
        apply: `(params, batch, key) -> logits [batch, classes]`, such as a `Model`'s.
        public: examples `[examples, ...]`, those of the server; labels are not looked at.
        ensemble: what of the logits is said, for instance `fl.distill.mean_logits()`.
        model: the model travels, and the server makes the soft labels of it (FedDF), which then cost no bits. What stands before this in
            a chain compresses it.
        then: an uplink for the soft labels, where they travel: `fl.uplink.local_gaussian`, `fl.uplink.uniform`.

    Returns:
        An optax transformation of one message into `Knowledge`; `update` needs the keyword `client`, and params, the model as received.

    Raises:
        ValueError: for a model that travels and an uplink of soft labels too; for public examples that the model can't take.
    """
    if model and then is not None:
        raise ValueError("soft_labels: with model=True soft labels are made at the server and not sent, so `then` has nothing to change")
    onward = optax.with_extra_args_support(optax.identity() if then is None else then)
    own = public_of(public)

    def init(message):
        one = Client(jnp.int32(0), jax.random.key(0), jnp.int32(1), jnp.int32(0), jnp.ones(()))
        logits = tree.zeros(fitting(apply, message, own, "a client's"))
        return _State(onward.init(ensemble.say(logits, one)), Sent(*jnp.zeros(3, jnp.float32)))

    def update(updates, state, params=None, *, client=None, public=None, **extra):
        if client is None or params is None:
            raise ValueError("soft_labels: give update params and the keyword client, as fl.federate does")
        logits = apply(optax.apply_updates(params, updates), own.examples if public is None else public, None)
        soft, then_state = onward.update(ensemble.say(logits, client), state.then, client=client, **extra)
        bits, whole = sent(then_state, soft), jnp.float32(dense_bits(soft))
        cost = Sent(0 * whole, 0 * whole, whole) if model else Sent(bits.payload, bits.side, whole)
        return Knowledge(soft, updates if model else ()), _State(then_state, cost)

    return optax.GradientTransformationExtraArgs(init, update)


def pooled(ensemble: Ensemble, soft: Aggregator, model: Aggregator | None = None, labels: Any = None) -> Aggregator:
    """An aggregator of `Knowledge`: one rule for soft labels, and one for models where they travel.

    Args:
        ensemble: what is made of the aggregate, the same as in `soft_labels`.
        soft: any aggregator, for the soft labels; a robust one, or `fl.aggregators.dp_mean`.
        model: any aggregator, for the changes of the models.
        labels: `[examples]`, of the public examples, where a simulation knows them; only for the metrics.

    Returns:
        An aggregator whose aggregate is a `Lesson`. Its metrics are those of `soft`, those of `model` under "model_", and with labels
        "teacher_accuracy" (how many public examples a client's model has right, the mean over clients) and "ensemble_accuracy". It adds if
        both do.

    Raises:
        ValueError: for a private rule for soft labels beside models that travel, which would give away what it hides.
    """
    if model is not None and soft.privacy is not None:
        raise ValueError("pooled: soft labels can't be private where models travel: leave model out, or take another rule for soft labels")
    additive = soft.additive and (model is None or model.additive)
    known = None if labels is None else jnp.asarray(labels)

    def accuracy(said):
        return jnp.mean(jnp.argmax(ensemble.target(said), axis=-1) == known, dtype=jnp.float32)

    def parts(messages, cohort, state):
        models = () if model is None else model.collect(messages.model, cohort, state.model)
        present = cohort.weight > 0
        right = () if known is None else jnp.sum(jnp.where(present, jax.vmap(accuracy)(messages.soft), 0))
        return Knowledge(soft.collect(messages.soft, cohort, state.soft), models), right, jnp.sum(present, dtype=jnp.float32)

    def init(message):
        return Knowledge(soft.init(message.soft), () if model is None else model.init(message.model))

    def collect(messages, cohort, state):
        return parts(messages, cohort, state) if additive else (messages, cohort)

    def finish(part, state, key):
        (knowledge, right, clients) = part if additive else parts(part[0], part[1], state)
        said, soft_state, metrics = soft.finish(knowledge.soft, state.soft, jax.random.fold_in(key, 0))
        change, model_state = (), ()
        if model is not None:
            change, model_state, told = model.finish(knowledge.model, state.model, jax.random.fold_in(key, 1))
            metrics = metrics | {f"model_{name}": value for name, value in told.items()}
        if known is not None:
            metrics = metrics | {"teacher_accuracy": right / jnp.maximum(clients, 1), "ensemble_accuracy": accuracy(said)}
        return Lesson(ensemble.target(said), change), Knowledge(soft_state, model_state), metrics

    return Aggregator(init, collect, finish, additive, soft.sums_only, soft.privacy)
