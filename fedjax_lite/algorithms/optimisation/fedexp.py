"""FedExP: the server goes as far along the average change as the clients' changes disagree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.aggregators import mean
from fedjax_lite.aggregators.parts import mapped
from fedjax_lite.algorithms.optimisation.pieces import fitting
from fedjax_lite.base import Aggregator, Algorithm, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.model import learned, with_statistics_of
from fedjax_lite.refuse import positive
from fedjax_lite.work import sgd_work


class State(NamedTuple):
    """What the server keeps."""

    params: Tree  # x
    before: Tree  # x of the round before
    rate: Array  # eta_g of the last round


def fedexp(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    eps: Number = 1e-3,
    convention: str = "paper",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedExP: FedAvg whose server extrapolates.

    eta_g = max(1, mean_S |Delta_k|^2 / (2 (|mean_S Delta_k|^2 + eps)));  x <- x + eta_g mean_S Delta_k,  Delta_k = y_k - x.

    Clients start from x; `params(state)`, which is evaluated, is the mean of the last two x, between which the steps swing.

    Args:
        eps: above 0, how little the server extrapolates: about the squared norm of a change that is noise alone. The authors take 1e-3
            and 0.1, and let it fall with the clients' rate.
        convention: "paper", or "released": eps times M, the number of clients whose messages arrived, as the authors' code has it; with
            `aggregator=fl.aggregators.weighted_mean()`, which counts clients by their examples in both means.
        aggregator: of {"params": Delta_k, "squared_norm": |Delta_k|^2}, the second computed from what arrives, so that clients send
            Delta_k alone; `fl.aggregators.mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, engine: as in `fedavg`. eta_g takes the place of a server rate.

    Returns:
        An `Algorithm` that also reports "server_rate", eta_g.

    Raises:
        ValueError: for an eps that is not positive, another convention, a private aggregator; "released" with an uplink that is private.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([3.0])}, {"x": jnp.array([-1.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedexp(loss_fn, optax.sgd(1.0), batches=fl.Batches(None), population=2, eps=0.25)
    >>> state, told = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> told["server_rate"].tolist(), state.server.params.item(), algorithm.params(state).item()  # 5 / (2 (1 + 0.25)), times 1
    ([2.0], 2.0, 1.0)

    Source: Jhunjhunwala, Wang, Joshi 2023, "FedExP: speeding up federated averaging via extrapolation", algorithm 1.
    """
    positive("fedexp", "eps", eps)
    if convention not in ("paper", "released"):
        raise ValueError(f'fedexp: convention must be "paper" (eps) or "released" (eps times the clients), got {convention!r}')
    aggregator = fitting("fedexp", aggregator, mean(), reports="the squared norms of their changes")

    def with_norm(change):
        return {"params": change, "squared_norm": tree.squared_norm(learned(change))}

    def update(aggregate, state, info):
        if convention == "released" and not info.metrics:
            raise ValueError('fedexp: convention "released" counts the clients, and that is private here: take "paper"')
        change = aggregate["params"]
        floor = eps if convention == "paper" else eps * jnp.maximum(info.clients, 1)
        rate = aggregate["squared_norm"] / (2 * (tree.squared_norm(learned(change)) + floor))
        rate = jnp.maximum(rate, 1).astype(state.rate.dtype)
        farther = with_statistics_of(change, jax.tree.map(lambda x: rate * x, change))
        params = optax.apply_updates(state.params, farther)
        return State(params, state.params, rate)

    server = Server(
        init=lambda params: State(params, params, jnp.ones(())),
        broadcast=lambda state: Shared(state.params),
        update=update,
        params=lambda state: jax.tree.map(lambda x, before: (x + before) / 2, state.params, state.before),
        metrics=lambda state: {"server_rate": state.rate},
    )
    work = sgd_work(loss_fn, optimizer, learning_rate=learning_rate)
    return federate(work, mapped(with_norm, aggregator), server, batches=batches, population=population, uplink=uplink, engine=engine)
