"""The numbers of a client's examples of each class, for losses that depend on them; they stay with the client."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_lite.base import ClientWork, Tree


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
        seen = jnp.sum(labels * batch.mask.reshape(-1, *[1] * (labels.ndim - 1)), axis=range(labels.ndim - 1))
        return Counting(work, carry.counts + jnp.where(batch.learning, 0, seen)), metrics

    def finish(shared, own, carry, client):
        return sgd.finish(shared, own, carry.work, client)

    return ClientWork(sgd.init, start, step, finish)
