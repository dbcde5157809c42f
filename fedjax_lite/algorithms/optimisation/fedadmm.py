"""FedADMM: each client's augmented Lagrangian, minimised by some steps from the model that it is sent."""

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
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.model import with_statistics_of
from fedjax_lite.refuse import positive
from fedjax_lite.work import gradient_term, sgd_work
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree  # y_k, where it last ended; nothing in the released form
    dual: Tree  # u_k
    steps: Tree


def fedadmm(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    rho: Number,
    form: str = "paper",
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedADMM: clients minimise f_k(y) + <u_k, y - x> + rho/2 |y - x|^2 by steps of SGD from x.

    y <- y - eta (g_k(y) + u_k + rho (y - x));  u_k^+ = u_k + rho (y_k^+ - x);
    x <- x + eta_g mean_S ((y_k^+ + u_k^+ / rho) - (y_k + u_k / rho)),  y_k at first the first model, u_k at first 0.

    With eta_g = |S| / N, x is the mean of all clients' y_k + u_k / rho.

    Args:
        rho: above 0.
        form: "paper"; "released", of the authors' code, whose clients send (y_k^+ - x) + (u_k^+ - u_k) / rho, which is 2 (y_k^+ - x):
            where all take part it ends where grad F(x) + rho / (2 eta_g) (x - x_0) = 0, and not at the optimum.
        learning_rate: eta; number, tracer or a schedule with its clock. The clients' steps are of plain SGD.
        aggregator: `fl.aggregators.mean()` by default.
        server_learning_rate: eta_g; |S| / N is exact, 1 quicker, but it can diverge where few of many clients take part.
        loss_fn, batches, population, uplink, engine: as in `fedavg`.

    Raises:
        ValueError: for a rho or a server rate that is not positive, another form, an aggregator that weighs clients or is private.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedadmm(loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2, rho=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=60, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # the optimum (1 + 15) / 4
    4.0

    Source: Gong, Li, Freris 2022, "FedADMM: a robust federated deep learning framework with adaptivity to system heterogeneity",
    algorithm 1.
    """
    positive("fedadmm", "rho", rho)
    if form not in ("paper", "released"):
        raise ValueError(f'fedadmm: form must be "paper" or "released", got {form!r}')
    aggregator = fitting("fedadmm", aggregator, mean(), keeps="dual variables", uniform="x is the mean of all clients' y_k + u_k / rho")
    lagrangian = gradient_term(lambda y, shared, own: jax.tree.map(lambda u, y, x: u + rho * (y - x), own.dual, y, shared.params))
    sgd = sgd_work(loss_fn, in_front(lagrangian, optax.sgd), learning_rate=learning_rate)

    def init(params, key):
        return Own(params if form == "paper" else (), jax.tree.map(jnp.zeros_like, params), sgd.init(params, key).steps)

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        dual = jax.tree.map(lambda u, moved: u + rho * moved, own.dual, change)
        before = own.model if form == "paper" else shared.params
        sent = jax.tree.map(lambda y, old, moved: (y - old) + moved, carry.params, before, change)  # (u_k^+ - u_k) / rho is the change
        return with_statistics_of(change, sent), Own(carry.params if form == "paper" else (), dual, after.steps), metrics

    work, server = ClientWork(init, sgd.start, sgd.step, finish), averaging("fedadmm", server_learning_rate)
    return federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
