"""Ditto: beside the global model each client trains one of its own, pulled toward the model that it is sent."""

from typing import Any, NamedTuple

import optax

from fedjax_lite import tree
from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, proximal
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import positive
from fedjax_lite.work import sgd_work
from fedjax_lite.work.personal import models_kept
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree  # v_k
    steps: Tree
    optimizer: Tree = ()


class Carry(NamedTuple):
    """What it holds while it trains."""

    received: Tree
    own: Tree


def ditto(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    lam: Number,
    learning_rate: Any = None,
    personal_optimizer: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Ditto: FedAvg, beside which each client trains a model of its own, on the same batches, pulled toward the model as received.

    y <- y - eta g_k(y) from x;  v_k <- v_k - eta (g_k(v_k) + lam (v_k - x));  x <- x + eta_g sum_k p_k (y_k - x).

    lam = 0 is training alone, and a large one the global model. Where the model that was trained is not finite, the client keeps the one
    before.

    Args:
        lam: lambda, not negative.
        personal_optimizer: of v_k, in place of `optimizer`; with `learning_rate` its factory.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the v_k; they start as the first model.

    Raises:
        ValueError: for a lam below 0.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = ditto(loss_fn, optax.sgd(0.3), batches=fl.Batches(None, steps=20), population=2, lam=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=5, key=jax.random.key(0))
    >>> [round(float(x), 3) for x in (algorithm.params(state), *algorithm.models(state))]  # v_k half way from each one's optimum to 5
    [5.0, 3.5, 6.5]

    Source: Li et al. 2021, "Ditto: fair and robust federated learning through personalization", algorithm 1.
    """
    positive("ditto", "lam", lam, or_zero=True)
    sgd = sgd_work(loss_fn, optimizer, learning_rate=learning_rate)
    pulled = in_front(proximal(lam), optimizer if personal_optimizer is None else personal_optimizer)
    own_sgd = sgd_work(loss_fn, pulled, learning_rate=learning_rate)

    def init(params, key):
        return Own(params, *sgd.init(params, key))

    def start(shared, own, client):
        return Carry(sgd.start(shared, own, client), own_sgd.start(shared._replace(params=own.model), own, client))

    def step(shared, own, carry, batch):
        received, metrics = sgd.step(shared, own, carry.received, batch)
        return Carry(received, own_sgd.step(shared, own, carry.own, batch)[0]), metrics

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry.received, client)
        return change, Own(tree.if_finite(carry.own.params, own.model), *after), metrics

    aggregator = weighted_mean() if aggregator is None else aggregator
    work, server = ClientWork(init, start, step, finish, personal=True), averaging("ditto", server_learning_rate)
    built = federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
    return built._replace(models=models_kept)
