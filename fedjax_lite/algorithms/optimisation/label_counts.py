"""The numbers of a client's examples of each class, and a loss that depends on them; they stay with the client."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_lite.base import ClientWork, Tree
from fedjax_lite.models.loss_fn import LossFn, facts_asked
from fedjax_lite.models.losses import of_logits, supervised
from fedjax_lite.models.model import Model, outputs_of
from fedjax_lite.work.terms import asking


class Known(NamedTuple):
    """What a loss is given as `own`."""

    counts: Float[Array, " classes"]  # n_c; 0 for an absent class
    steps: Tree  # as in the row of the SGD work


class Counting(NamedTuple):
    """The carry."""

    work: Tree
    counts: Float[Array, " classes"]


def counting_labels(sgd: ClientWork, classes: int) -> ClientWork:
    """Wrap SGD work so that its loss finds the counts of the labels "y" in `own`, from a pass before training: `fl.Batches(before=1)`.

    Nothing is kept or sent: the counts are taken again in every round.
    """

    def start(shared, own, client):
        return Counting(sgd.start(shared, own, client), jnp.zeros(classes))

    def step(shared, own, carry, batch):
        work, metrics = sgd.step(shared, Known(carry.counts, own.steps), carry.work, batch)
        labels = jax.nn.one_hot(batch.examples["y"], classes)
        seen = jnp.sum(labels * batch.mask.reshape(-1, *[1] * (labels.ndim - 1)), axis=tuple(range(labels.ndim - 1)))
        return Counting(work, carry.counts + jnp.where(batch.learning, 0, seen)), metrics

    def finish(shared, own, carry, client):
        return sgd.finish(shared, own, carry.work, client)

    return ClientWork(sgd.init, start, step, finish)


def loss_of_changed(change: Callable[[Array, Array, Array], Array], model: Model) -> LossFn:
    """Make the cross-entropy of `change(logits, labels, counts)`, all of one shape but the labels; other metrics are of plain logits."""

    def loss_fn(params, batch, key, own, **mask):
        logits, *statistics = outputs_of(model, params, batch, key, **mask)
        losses, _ = of_logits(change(logits, batch["y"], jnp.broadcast_to(own.counts, logits.shape)), batch, key)
        return losses, of_logits(logits, batch, key)[1], *statistics

    return asking(loss_fn, {"own"} | facts_asked(model.apply), supervised(model))
