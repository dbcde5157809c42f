"""DiLoCo: replicas that keep their optimizer take many local steps, and the server takes steps of Nesterov along their mean change."""

from typing import Any

import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_share
from fedjax_lite.work import sgd_work


def diloco(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    momentum: Number = 0.9,
    nesterov: bool = True,
    keep_optimizer: bool = True,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 0.7,
    engine: Engine | None = None,
) -> Algorithm:
    r"""DiLoCo: H steps of an inner optimizer whose moments stay on the replica, and an outer step of Nesterov along the mean change.

    y_k^0 = x, H steps of `optimizer` from the state that k kept;  Delta = mean_k (y_k - x);
    v <- beta v + Delta;  x <- x + eta_g (Delta + beta v),  without `nesterov` x <- x + eta_g v.

    Args:
        optimizer: the inner one, `optax.adamw(...)` in the paper, or with `learning_rate` its factory. A schedule inside it, or
            `fl.on_client_step(...)` as rate, counts all steps that the replica ever took, as the paper's warm-up and decay do.
        batches: the replicas' H steps: `fl.Batches(32, steps=500)`.
        momentum: beta, in [0, 1).
        nesterov: False for the server's momentum without the look-ahead.
        keep_optimizer: False makes the inner optimizer's state anew in every round.
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for a momentum out of range, a server rate that is not positive, a private aggregator beside kept optimizers.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([6.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> inner = optax.sgd(0.5, momentum=0.5)
    >>> algorithm = fl.algorithms.diloco(
    ...     loss_fn, inner, batches=fl.Batches(None, steps=1), population=2, momentum=0.0, server_learning_rate=1.0
    ... )
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> float(algorithm.params(state))  # 0.5 * 4 = 2, then 2 + 0.5 (2 + 0.5 * 4); 3 without what the replicas kept
    4.0

    Source: Douillard et al. 2023, "DiLoCo: distributed low-communication training of language models", algorithm 1.
    """
    momentum = a_share("diloco", "momentum", momentum, "[0, 1)")
    keeps = "the state of their optimizer (but with keep_optimizer=False)" if keep_optimizer else ""
    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate, keep_optimizer=keep_optimizer),
        fitting("diloco", aggregator, mean(), keeps=keeps),
        averaging("diloco", server_learning_rate, lambda rate: optax.sgd(rate, momentum=momentum, nesterov=nesterov)),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
