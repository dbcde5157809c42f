"""FedAdagrad, FedAdam and FedYogi: FedAvg whose server takes adaptive steps along the average change."""

from collections.abc import Callable
from typing import Any

import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.adaptive import scale_by_fedadagrad, scale_by_fedadam, scale_by_fedyogi
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.work import sgd_work


def fedadagrad(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    tau: Number = 1e-3,
    b1: Number = 0.0,
    convention: str = "paper",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 0.1,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedAdagrad: FedAvg with Adagrad at the server.

    m <- b1 m + (1 - b1) Delta;  v <- v + Delta^2;  x <- x + eta_g m / (sqrt(v) + tau),  Delta = sum_k p_k (y_k - x).

    Args:
        tau: above 0, how little the server adapts: 1e-3, or what suits the sizes of the changes.
        b1: in [0, 1), 0 in the paper.
        convention: "paper", or "keras" or "flower", which start and scale elsewhere: `scale_by_fedadagrad`.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for numbers out of range, another convention, a server rate that is not positive.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedadagrad(loss_fn, optax.sgd(1.0), batches=fl.Batches(None), population=1, tau=3.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 0.1 of 4 / (sqrt(9 + 16) + 3)
    0.05

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.
    """
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedadagrad", server_learning_rate, _after(scale_by_fedadagrad(b1, tau, convention))),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )


def fedadam(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    tau: Number = 1e-3,
    b1: Number = 0.9,
    b2: Number = 0.99,
    convention: str = "paper",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 0.01,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedAdam: FedAvg with Adam at the server, without a correction of the bias.

    m <- b1 m + (1 - b1) Delta;  v <- b2 v + (1 - b2) Delta^2;  x <- x + eta_g m / (sqrt(v) + tau),  Delta = sum_k p_k (y_k - x).

    Args:
        tau: above 0, how little the server adapts: 1e-3, or what suits the sizes of the changes.
        b1, b2: in [0, 1).
        convention: "paper", or "keras" or "flower", which start and scale elsewhere: `scale_by_fedadam`.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for numbers out of range, another convention, a server rate that is not positive.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedadam(loss_fn, optax.sgd(1.0), batches=fl.Batches(None), population=1, b1=0.5, b2=0.5, tau=3.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 0.01 of 2 / (sqrt(4.5 + 8) + 3)
    0.0031

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.
    """
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedadam", server_learning_rate, _after(scale_by_fedadam(b1, b2, tau, convention))),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )


def fedyogi(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    tau: Number = 1e-3,
    b1: Number = 0.9,
    b2: Number = 0.99,
    convention: str = "paper",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 0.01,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedYogi: FedAvg with Yogi at the server, without a correction of the bias.

    m <- b1 m + (1 - b1) Delta;  v <- v - (1 - b2) Delta^2 sign(v - Delta^2);  x <- x + eta_g m / (sqrt(v) + tau).

    Args:
        tau: above 0, how little the server adapts: 1e-3, or what suits the sizes of the changes.
        b1, b2: in [0, 1).
        convention: "paper", or "keras" or "flower", which start and scale elsewhere: `scale_by_fedyogi`.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for numbers out of range, another convention, a server rate that is not positive.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedyogi(loss_fn, optax.sgd(1.0), batches=fl.Batches(None), population=1, b1=0.5, b2=0.5, tau=3.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 0.01 of 2 / (sqrt(9 + 8) + 3)
    0.0028

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.
    """
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedyogi", server_learning_rate, _after(scale_by_fedyogi(b1, b2, tau, convention))),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )


def _after(scale: optax.GradientTransformation) -> Callable[[Any], optax.GradientTransformation]:
    """Make the factory of an optimizer that takes steps along what `scale` returns."""
    return lambda rate: optax.chain(scale, optax.sgd(rate))
