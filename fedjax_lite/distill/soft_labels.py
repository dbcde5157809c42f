"""An uplink that turns a client's model into its soft labels of public examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.base import Client, Tree
from fedjax_lite.distill.ensemble import Ensemble
from fedjax_lite.distill.public_set import logits_shape, public_of
from fedjax_lite.distill.student import Apply
from fedjax_lite.ledger import Sent, count, dense_bits, lump, sent
from fedjax_lite.refuse import whole
from fedjax_lite.uplink.client_metrics import ClientMetrics

__all__ = ["Knowledge", "flat_model", "logits_of", "soft_labels", "unflat_model"]


AT_ONCE = 1024  # public examples in one forward pass


class Knowledge(NamedTuple):
    """A client's message in distillation."""

    soft: Tree  # its soft labels of the public examples, from `Ensemble.say`
    model: Tree = ()  # the change of its model, where models travel


class _State(NamedTuple):
    """The uplink's state of one client."""

    then: Tree
    sent: Sent
    told: Tree  # the number of public examples that its model has right, where labels are known


def soft_labels(
    apply: Apply,
    public: Any,
    ensemble: Ensemble,
    *,
    model: bool = False,
    width: int | None = None,
    then: optax.GradientTransformation | None = None,
    at_once: int = AT_ONCE,
) -> optax.GradientTransformationExtraArgs:
    """Make an uplink that sends a client's soft labels of public examples in place of its model, or of its model's change.

    Args:
        apply: `(params, batch, key) -> logits [batch, classes]`, for instance a `Model`'s.
        public: the server's examples `[examples, ...]`, or its `fl.distill.public_set`. With labels the metric "teacher_accuracy" is the
            share of the examples that a client's logits have right, averaged over clients.
        ensemble: decides which function of the logits is sent, for instance `fl.distill.mean_logits()`.
        model: the change of the model travels, and the server makes the soft labels of the model (FedDF), which then cost no bits. An
            uplink before this in a chain compresses the change.
        width: for families whose models travel, the number of parameters of the largest model; the change is then a vector `[width]`.
        then: an uplink for the soft labels, where they travel: `fl.uplink.local_gaussian`, `fl.uplink.uniform`.
        at_once: examples in one forward pass; with the engine's lanes this bounds the memory.

    Returns:
        An optax transformation of one message into `Knowledge`. The message is the change of `params`, the model as received, or where
        the server sends none the client's model itself (`fl.distill.digest_work`). `update` needs the keyword `client`.

    Raises:
        ValueError: for a model that travels and an uplink of soft labels too; for public examples that the model can't take.

    >>> import fedjax_lite as fl
    >>> apply, public = lambda params, batch, key: batch["x"][:, None] * params, {"x": jnp.array([1.0, 2.0])}
    >>> uplink, client = fl.distill.soft_labels(apply, public, fl.distill.mean_logits()), fl.Client(0, jax.random.key(0), 1, 0, 1.0)
    >>> params, change = jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])
    >>> message, state = uplink.update(change, uplink.init(change), params, client=client)
    >>> message.soft.tolist(), state.sent.payload.item()
    ([[1.0, 3.0], [2.0, 6.0]], 128.0)
    """
    if model and then is not None:
        raise ValueError("soft_labels: with model=True soft labels are made at the server and not sent, so `then` has nothing to change")
    whole("soft_labels", "at_once", at_once, least=1)
    onward = optax.with_extra_args_support(optax.identity() if then is None else then)
    known = public_of(public)

    def bits_of(payload, side, soft, change):
        """Return the bits sent for soft labels; their dense size also counts the zeros that fill a model up to `width`."""
        return lump("soft labels", payload, side, dense_bits(soft) + (32 * (width - count(change)) if model and width else 0))

    def init(message):
        one = Client(jnp.int32(0), jax.random.key(0), jnp.int32(1), jnp.int32(0), jnp.ones(()))
        logits = tree.zeros(logits_shape(apply, message, known, "a client's"))
        return _State(onward.init(ensemble.say(logits, one)), bits_of(0.0, 0.0, ensemble.say(logits, one), message), right(logits, 0))

    def right(logits, round):
        """Count the round's examples that `logits` have right; () where labels are unknown."""
        if known.labels is None:
            return ()
        labels = known.of(round, known.labels)
        return ClientMetrics(
            {"teacher_accuracy": (jnp.sum(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.int32), jnp.int32(len(labels)))}
        )

    def update(updates, state, params=None, *, client=None, public=None, round=0, **extra):
        if client is None:
            raise ValueError("soft_labels: give update the keyword client, and params, as fl.federate does")
        trained = optax.apply_updates(params, updates) if jax.tree.leaves(params) else updates
        examples = known.of(round, known.examples if public is None else public.examples)
        logits = logits_of(apply, trained, examples, at_once)
        soft, then_state = onward.update(ensemble.say(logits, client), state.then, client=client, round=round, **extra)
        if not model:
            return Knowledge(soft), _State(then_state, bits_of(*sent(then_state, soft), soft, updates), right(logits, round))
        free = bits_of(0.0, 0.0, soft, updates)  # soft labels that the server makes cost nothing
        return Knowledge(soft, updates if width is None else flat_model(updates, width)), _State(then_state, free, right(logits, round))

    return optax.GradientTransformationExtraArgs(init, update)


def logits_of(apply: Apply, params: Tree, examples: Tree, at_once: int) -> Float[Array, "examples classes"]:
    """Compute a model's logits of `examples`, `at_once` examples at a time."""
    length = len(jax.tree.leaves(examples)[0])
    if length <= at_once:
        return apply(params, examples, None)
    even = length // at_once * at_once
    groups = jax.tree.map(lambda x: x[:even].reshape(-1, at_once, *x.shape[1:]), examples)
    logits = jax.lax.map(lambda group: apply(params, group, None), groups)
    rest = apply(params, jax.tree.map(lambda x: x[even:], examples), None) if even < length else logits[0, :0]
    return jnp.concatenate([logits.reshape(-1, *logits.shape[2:]), rest])


def flat_model(model: Tree, width: int) -> Float[Array, " width"]:
    """Flatten a model to a float32 vector `[width]`, filled up with zeros.

    Raises:
        ValueError: if the model has more than `width` numbers.
    """
    if count(model) > width:
        raise ValueError(f"soft_labels: width={width} is less than the {count(model)} parameters of a family's model: give the most of any")
    numbers = jnp.concatenate([x.astype(jnp.float32).reshape(-1) for x in jax.tree.leaves(model)])
    return jnp.pad(numbers, (0, width - numbers.size))


def unflat_model(vector: Float[Array, " width"], like: Tree) -> Tree:
    """Invert `flat_model`, into the structure, shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    ends = [0]
    for x in leaves:
        ends.append(ends[-1] + x.size)
    parts = [vector[a:b].reshape(x.shape).astype(x.dtype) for a, b, x in zip(ends[:-1], ends[1:], leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)
