"""FedProx: a proximal term keeps local models near the model that was sent."""

from typing import Any

import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, proximal
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import positive
from fedjax_lite.work import sgd_work
from fedjax_lite.work.terms import in_front


def fedprox(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    mu: Number,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedProx: FedAvg whose clients minimise f_k(y) + mu/2 |y - x|^2, and whose stragglers count with the steps that they took.

    g <- g_k(y) + mu (y - x), then `optimizer`;  x <- x + eta_g sum_k p_k (y_k - x),  p_k = n_k / sum n.

    Args:
        mu: the strength of the proximal term, above 0; the paper tries 0.001, 0.01, 0.1 and 1. With a client momentum the term is in
            the buffer, as part of the gradient.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.
            Stragglers are a sampler's: `fl.sampling.stragglers`.

    Raises:
        ValueError: for a mu or a server rate that is not positive.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedprox(loss_fn, optax.sgd(0.5), batches=fl.Batches(None, steps=60), population=2, mu=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # the mean of the proximal points 1 and 4
    2.5

    Source: Li et al. 2020, "Federated optimization in heterogeneous networks", algorithm 2.
    """
    positive("fedprox", "mu", mu)
    return federate(
        sgd_work(loss_fn, in_front(proximal(mu), optimizer), learning_rate=learning_rate),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedprox", server_learning_rate),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
