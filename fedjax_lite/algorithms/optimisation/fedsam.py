"""FedSAM: clients look for flat minima, by gradients a step uphill of where they are."""

from typing import Any

import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, sharpness_aware
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.work import sgd_work


def fedsam(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    rho: Number = 0.05,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedSAM: FedAvg whose clients' gradients are taken a distance rho uphill.

    e = rho g_k(y) / |g_k(y)|, then `optimizer` with g_k(y + e);  x <- x + eta_g sum_k p_k (y_k - x),  p_k = n_k / sum n.

    Both gradients are of one batch, with one key (so with one mask of dropout), and |g| is the norm of the whole model's gradient. A step
    costs two. The loss that is reported is that at y.

    Args:
        rho: the distance, 0 for FedAvg; 0.01 to 0.1 in use.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.
            Steps along the last round's direction as well make it MoFedSAM: `fedcm` with its argument rho.

    Raises:
        ValueError: for a rho below 0, a server rate that is not positive.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedsam(loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=1, rho=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # half of the gradient at -1
    2.5

    Source: Qu et al. 2022, "Generalized federated learning via sharpness aware minimization", algorithm 1.
    """
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate, gradients=sharpness_aware("fedsam", rho)),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedsam", server_learning_rate),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
