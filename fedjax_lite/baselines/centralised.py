"""Centralised training: one model on the examples of all clients together."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.base import NO_LIMIT, Algorithm, ClientWork
from fedjax_lite.batches import Batches
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.engine import sequential
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.sampling.participation import cohort as cohort_of
from fedjax_lite.server import optimizer_server
from fedjax_lite.work import sgd_work


def centralised(loss_fn: LossFn, optimizer: Any, *, batches: Batches, learning_rate: Any = None, **options: Any) -> Algorithm:
    r"""Centralised training: all clients' examples in one place, and as many steps a round as the cohort's clients take together.

    x <- x + U(grad of the mean loss over a batch of all examples), sum_k K_k times a round.

    An algorithm like any other: run it with the data, the sampler, the number of rounds and the key of a federated run, and it takes
    as many steps as that run's clients took. The optimizer's state lasts as long as the run, and schedules have the run's clocks.

    Args:
        loss_fn, optimizer, learning_rate: as in `fl.sgd_work`, whose other arguments may follow.
        batches: those of the clients; a batch is drawn from the examples of all.

    Returns:
        An `Algorithm` whose `params(state)` is the model. Its examples must be in memory.

    Raises:
        ValueError: for a loss with class counts of each client.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.baselines.centralised(loss_fn, optax.sgd(0.5), batches=fl.Batches(None))
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # two steps toward the mean of all examples, 4: to 2, to 3
    3.0
    """
    check_pooled(loss_fn)
    return pooled(sgd_work(loss_fn, optimizer, learning_rate=learning_rate, keep_optimizer=True, **options), batches)


def check_pooled(loss_fn: LossFn) -> None:
    """Refuse a loss that depends on whose an example is.

    Raises:
        ValueError: saying what to take.
    """
    if getattr(loss_fn, "of_whole_client", False):
        raise ValueError("centralised: loss_fn has class_counts of each client, and here all examples are one's: give the counts of all")


def pooled(work: ClientWork, batches: Batches) -> Algorithm:
    """Make centralised training of client work."""
    as_many_as_told = Batches(batches.size, steps=NO_LIMIT, shuffle=batches.shuffle)
    built = federate(work, mean("propagate"), optimizer_server(optax.sgd(1.0)), batches=as_many_as_told, population=1, engine=sequential())

    def round(state, data, cohort):
        if not isinstance(data, FederatedData):
            raise ValueError("centralised: its examples must be in memory together, and these are streamed: take store.in_memory()")
        taken = jnp.minimum(cohort.steps, batches.steps_of(cohort.size, state.round))
        taken = jnp.sum(jnp.where(cohort.weight > 0, taken, 0), keepdims=True, dtype=jnp.int32)
        examples = jax.tree.leaves(data.examples)[0].shape[0]
        together = replace(data, start=jnp.zeros(1, jnp.int32), size=jnp.full(1, examples, jnp.int32), largest=examples)
        everything = cohort_of(state.key, together.size, jnp.zeros(1, jnp.int32))
        return built.round(state, together, everything._replace(steps=taken))

    return built._replace(round=round, layout=None)
