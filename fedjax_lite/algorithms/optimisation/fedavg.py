"""FedSGD, FedAvg and FedAvgM: the same round with other local steps and another server optimizer."""

from typing import Any

import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.server import optimizer_server
from fedjax_lite.work import sgd_work


def fedavg(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedAvg: clients train for some local epochs, the server adds the weighted average of their changes.

    y_k^0 = x, K_k steps of `optimizer`;  x <- x + eta_g sum_k p_k (y_k - x),  p_k = n_k / sum n.

    Args:
        loss_fn, optimizer, learning_rate: as in `fl.sgd_work`.
        batches: batch size and local epochs or steps.
        population: the number of clients.
        aggregator: `fl.aggregators.weighted_mean()` by default.
        server_learning_rate: eta_g above 0; number, tracer or `fl.on_round(schedule)`.
        uplink, engine: as in `fl.federate`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(1.0), batches=fl.Batches(None), population=2)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 2/3 of 2.0 and 1/3 of 8.0
    4.0

    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data", algorithm 1.
    """
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedavg", server_learning_rate),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )


def fedavgm(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    momentum: Any = 0.9,
    nesterov: bool = False,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedAvgM: FedAvg with momentum at the server.

    v <- beta v + Delta;  x <- x + eta_g v  (Nesterov: x <- x + eta_g (Delta + beta v)),  Delta = sum_k p_k (y_k - x).

    Args:
        momentum: beta.
        nesterov: the look-ahead form.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedavgm(loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=2, momentum=0.5)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 2, then 2 + (1 + 0.5 * 2)
    4.0

    Source: Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution for federated visual
    classification", section 4.3.
    """
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedavgm", server_learning_rate, lambda rate: optax.sgd(rate, momentum=momentum, nesterov=nesterov)),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )


def fedsgd(
    loss_fn: LossFn,
    *,
    population: int,
    learning_rate: Any = 0.1,
    aggregator: Aggregator | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedSGD: one gradient over all of a client's examples, one server step along their weighted average.

    x <- x - eta sum_k p_k grad f_k(x). With p_k = n_k / n and everyone taking part this is full-batch gradient descent.

    Args:
        learning_rate: eta; number, tracer or `fl.on_round(schedule)`.
        loss_fn, population, aggregator, engine: as in `fedavg`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=0.5, population=2)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # half of the way to the mean of all examples
    2.0

    Source: McMahan et al. 2017, section 2.
    """
    return federate(
        sgd_work(loss_fn, optax.sgd(1.0)),
        weighted_mean() if aggregator is None else aggregator,
        optimizer_server(optax.sgd, learning_rate=learning_rate),
        batches=Batches(size=None, steps=1),
        population=population,
        engine=engine,
    )
