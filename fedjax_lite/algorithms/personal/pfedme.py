"""pFedMe: clients' models are proximal points of the model that they send, a Moreau envelope of their loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn, loss_and_gradient
from fedjax_lite.refuse import integer, positive
from fedjax_lite.streams import HIGH_STREAM
from fedjax_lite.work import sgd_work
from fedjax_lite.work.personal import models_kept
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree  # theta_k
    steps: Tree
    optimizer: Tree = ()


def pfedme(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    lam: Number,
    inner_rate: Number,
    inner_steps: int = 5,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""pFedMe: each local step moves the model toward the client's proximal point, which is the client's own model.

    theta = argmin_t f_k(t; batch) + lam/2 |t - w|^2, by inner_steps of gradient descent from w;  w <- w - eta lam (w - theta);
    x <- x + beta mean_S (w_k - x).

    Args:
        lam: lambda, above 0.
        inner_rate, inner_steps: of the descent to theta, on the batch of the local step.
        learning_rate: eta; number, tracer or a schedule with its clock.
        server_learning_rate: beta, from 1 to 2 in the paper.
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, batches, population, uplink, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the last theta of each client; at first all are the first model. The metrics are those of
        w before each step.

    Raises:
        ValueError: for a lam, inner_rate or server rate that is not positive, inner_steps below 1, an aggregator that weighs clients.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> given = {"batches": fl.Batches(None, steps=20), "population": 2, "inner_rate": 0.3, "inner_steps": 20}
    >>> algorithm = pfedme(loss_fn, learning_rate=0.5, lam=1.0, **given)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=20, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 2), [round(float(x), 2) for x in algorithm.models(state)]
    (5.0, [2.01, 7.99])

    Source: T. Dinh, Tran, Nguyen 2020, "Personalized federated learning with Moreau envelopes", algorithm 1.
    """
    positive("pfedme", "lam", lam)
    positive("pfedme", "inner_rate", inner_rate)
    integer("pfedme", "inner_steps", inner_steps, least=1)
    aggregator = fitting("pfedme", aggregator, mean(), keeps="models", uniform="x moves to the mean of all clients' w_k")

    def gradients(loss_fn, w, batch, key):
        found, g = loss_and_gradient(loss_fn, w, batch, key)

        def descend(j, theta):
            g = loss_and_gradient(loss_fn, theta, batch, jax.random.fold_in(key, jnp.uint32(HIGH_STREAM) + j.astype(jnp.uint32)))[1]
            return jax.tree.map(lambda g, theta, w: theta - inner_rate * (g + lam * (theta - w)), g, theta, w)

        first = jax.tree.map(lambda w, g: w - inner_rate * g, w, g)
        theta = jax.lax.fori_loop(1, inner_steps, descend, first)
        return found, jax.tree.map(lambda w, theta: lam * (w - theta), w, theta)

    # The optimizer's first state is the last theta, w - gradient / lambda.
    noting = optax.GradientTransformation(
        lambda params: params, lambda g, state, params: (g, jax.tree.map(lambda w, g: w - g / lam, params, g))
    )
    sgd = sgd_work(loss_fn, in_front(noting, optax.sgd), learning_rate=learning_rate, gradients=gradients)

    def init(params, key):
        return Own(params, *sgd.init(params, key))

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        return change, Own(carry.optimizer[0], *after), metrics

    work, server = ClientWork(init, sgd.start, sgd.step, finish), averaging("pfedme", server_learning_rate)
    built = federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
    return built._replace(models=models_kept)
