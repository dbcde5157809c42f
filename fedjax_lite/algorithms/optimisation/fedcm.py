"""FedCM, and with perturbed gradients MoFedSAM: every local step goes along the direction of the last round, too."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.aggregators.parts import mapped
from fedjax_lite.algorithms.optimisation.pieces import averaging, counted_sgd, divisor, fitting, on_change, sharpness_aware
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_share
from fedjax_lite.work import gradient_term, sgd_work


class State(NamedTuple):
    """What the server keeps."""

    model: Tree
    direction: Tree  # D, in the scale of a gradient


def fedcm(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    alpha: Number = 0.1,
    rho: Number = 0.0,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedCM: local steps along a mixture of the client's gradient and the mean direction of the last round.

    y <- y - eta (alpha g_k(y) + (1 - alpha) D);  x <- x + eta_g mean_S (y_k - x);
    D <- mean_S D_k,  D_k = (x - y_k) / sum of the client's step sizes;  D starts at 0.

    Each client's change is divided by what its own steps add up to, so D is right for clients with unequal numbers of steps and under any
    schedule of eta. The first round goes alpha times as far as one of FedAvg; alpha = 1 is FedAvg with equal weights.

    Args:
        alpha: in (0, 1], the weight of the client's gradient.
        rho: above 0 the gradient is taken at y + rho g_k(y) / |g_k(y)|, as in `fedsam`: MoFedSAM.
        learning_rate: eta; number, tracer or a schedule with its clock. The clients' steps are of plain SGD.
        aggregator: of messages {"params": y_k - x, "direction": D_k}; `fl.aggregators.mean()` by default. A client sends its change and
            the sum of its step sizes, which the server divides by. A robust rule takes both parts together, or one each:
            `fl.aggregators.by_part(params=..., direction=...)`.
        uplink: as in `fl.federate`, of the change; the sum of step sizes is sent as it is.
        loss_fn, batches, population, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for an alpha outside (0, 1], a rho below 0, a server rate that is not positive, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedcm(loss_fn, learning_rate=0.5, batches=fl.Batches(None), population=1, alpha=0.5)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 1, with D = -2; then 0.5 (0.5 * 3 + 0.5 * 2) more
    2.25

    Source: Xu et al. 2021, "FedCM: federated learning with client-level momentum", algorithm 2; with rho Qu et al. 2022,
    "Generalized federated learning via sharpness aware minimization", algorithm 2.
    """
    a_share("fedcm", "alpha", alpha, "(0, 1]")
    aggregator = fitting("fedcm", aggregator, mean(), reports="the sum of their step sizes")
    average = averaging("fedcm", server_learning_rate)
    momentum = gradient_term(lambda y, shared, own: optax.tree.scale(1 - alpha, shared.extra))
    mixed = lambda rate: optax.chain(optax.scale(alpha), momentum, counted_sgd(rate))  # noqa: E731
    sgd = sgd_work(loss_fn, mixed, learning_rate=learning_rate, gradients=sharpness_aware("fedcm", rho))

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        return {"params": change, "steps": carry.optimizer[-1].total}, after, metrics

    def divided(message):
        change, taken = message["params"], divisor(message["steps"])
        return {"params": change, "direction": jax.tree.map(lambda moved: (-moved / taken).astype(moved.dtype), change)}

    def update(aggregate, state, info):
        return State(average.update(aggregate["params"], state.model, info), aggregate["direction"])

    server = Server(
        init=lambda params: State(average.init(params), jax.tree.map(jnp.zeros_like, params)),
        broadcast=lambda state: average.broadcast(state.model)._replace(extra=state.direction),
        update=update,
    )
    work, rule = ClientWork(sgd.init, sgd.start, sgd.step, finish), mapped(divided, aggregator)
    return federate(work, rule, server, batches=batches, population=population, uplink=on_change(uplink), engine=engine)
