"""Local training only: every client has a model of its own, and never hears of the others."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.aggregators import from_sum
from fedjax_lite.base import Algorithm, ClientWork, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.work import sgd_work
from fedjax_lite.work.personal import models_kept


class Own(NamedTuple):
    """What a client keeps: its model, and the own row of `sgd_work`."""

    model: Tree
    steps: Tree
    optimizer: Tree


def local_only(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    engine: Engine | None = None,
    **options: Any,
) -> Algorithm:
    r"""Local training only: each client trains a model of its own on its own examples, in the rounds in which it is drawn.

    y_k <- y_k + U(grad of the mean loss over a batch of k's examples), K_k times in each round that k takes part in, from x^0.

    An algorithm like any other: run it with the data, the sampler, the number of rounds and the key of a federated run, and each
    client takes as many steps alone as it took there. A client that is never drawn keeps the first model.

    Args:
        loss_fn, optimizer, learning_rate: as in `fl.sgd_work`, whose other arguments may follow. The optimizer's state is kept.
        batches, population, engine: as in `fl.algorithms.fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the clients' models, for `fl.evaluate_each`; its `params(state)` are their mean, which is
        no model that anyone has. Nothing is sent.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.baselines.local_only(loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=2)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> algorithm.models(state).tolist()  # 3/4 of the way to 2, and to 8
    [1.5, 6.0]
    """
    work = sgd_work(loss_fn, optimizer, learning_rate=learning_rate, keep_optimizer=True, **options)
    return alone(work, batches, population, engine)


def alone(work: ClientWork, batches: Batches, population: int, engine: Engine | None = None) -> Algorithm:
    """Make local training of client work on models that stay with their clients."""

    def init(params, key):
        return Own(params, *work.init(params, key))

    def start(shared, own, client):
        return work.start(shared._replace(params=own.model), own, client)

    def step(shared, own, carry, batch):
        return work.step(shared._replace(params=own.model), own, carry, batch)

    def finish(shared, own, carry, client):
        change, after, metrics = work.finish(shared._replace(params=own.model), own, carry, client)
        told = tree.squared_norm(change)  # which is not finite where the model is not, and then the client keeps the model before
        return told, Own(optax.apply_updates(own.model, change), *after), metrics

    nothing = from_sum(lambda message, client: (), lambda total: ())._replace(bits=lambda message: 0)
    server = Server(init=lambda params: (), broadcast=lambda state: Shared(()), update=lambda aggregate, state, info: ())
    built = federate(ClientWork(init, start, step, finish), nothing, server, batches=batches, population=population, engine=engine)
    layout = built.layout and built.layout._replace(rows=None)  # models are evaluated, so they stay on the device
    means = lambda state: jax.tree.map(lambda x: jnp.mean(x, axis=0), state.own.model)  # noqa: E731
    return built._replace(params=means, models=models_kept, layout=layout)
