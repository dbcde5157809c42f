"""FedSpeed: FedDyn's corrected proximal steps, along gradients that are partly taken uphill."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting, share_arrived, sharpness_aware
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.model import learned
from fedjax_lite.refuse import a_share, positive
from fedjax_lite.work import gradient_term, sgd_work
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    dual: Tree  # h_k, the sum of its changes
    steps: Tree


class State(NamedTuple):
    """What the server keeps."""

    model: Tree
    dual: Tree  # the mean of all clients' h_k


def fedspeed(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    rho: Number = 0.1,
    lam: Number = 0.1,
    a: Number = 1.0,
    dual_mean: str = "all",
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedSpeed: proximal steps, corrected by the sum of a client's earlier changes, along gradients partly taken uphill.

    q = (1 - a) g_k(y) + a g_k(y + rho g_k(y) / |g_k(y)|);  y <- y - eta (q + lam (h_k + y - x));  h_k <- h_k + y_k - x;
    x <- x + eta_g (mean_S y_k + h - x),  h the mean of all N clients' h_k.

    With rho = 0 this is `feddyn` with alpha = lam and lambda_k = -lam h_k.

    Args:
        rho: the distance uphill, 0 for none, as in `fedsam`.
        lam: above 0, the weight of the proximal term, which the paper calls 1 / lambda.
        a: in [0, 1], the share of the gradient uphill, the paper's alpha.
        dual_mean: "all", as in the authors' code; "cohort": the paper's mean of y_k + h_k over S, which is the same where all clients
            take part, and can diverge where few do.
        learning_rate: eta; number, tracer or a schedule with its clock. The clients' steps are of plain SGD.
        aggregator: `fl.aggregators.mean()` by default.
        server_learning_rate: eta_g, 1 in the paper.
        loss_fn, batches, population, uplink, engine: as in `fedavg`.

    Raises:
        ValueError: for numbers out of range, another dual_mean, an aggregator that weighs clients or is private; in a round, with
            dual_mean "all", for an uplink that hides the clients' data.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedspeed(
    ...     loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2, rho=0.05, lam=1.0
    ... )
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=60, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # one client's slope at x + 0.05 and another's at x - 0.05: (0.95 + 15.15) / 4
    4.025

    Source: Sun et al. 2023, "FedSpeed: larger local interval, less communication round, and higher generalization accuracy", algorithm 1.
    """
    positive("fedspeed", "lam", lam)
    a = a_share("fedspeed", "a", a, "[0, 1]")
    if dual_mean not in ("all", "cohort"):
        raise ValueError(f'fedspeed: dual_mean must be "all" (the mean of all clients\' h_k) or "cohort", got {dual_mean!r}')
    aggregator = fitting("fedspeed", aggregator, mean(), keeps="dual variables", uniform="h is the mean over all clients' h_k")
    average = averaging("fedspeed", server_learning_rate)
    proximal = gradient_term(lambda y, shared, own: jax.tree.map(lambda h, y, x: lam * (h + y - x), own.dual, y, shared.params))
    uphill = sharpness_aware("fedspeed", rho, a)
    sgd = sgd_work(loss_fn, in_front(proximal, optax.sgd), learning_rate=learning_rate, gradients=uphill)

    def init(params, key):
        return Own(jax.tree.map(jnp.zeros_like, params), sgd.init(params, key).steps)

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        dual = optax.tree.add(own.dual, learned(change))
        return change if dual_mean == "all" else optax.tree.add(change, dual), Own(dual, after.steps), metrics

    def update(change, state, info):
        if dual_mean == "cohort":
            return state._replace(model=average.update(change, state.model, info))
        share = share_arrived("fedspeed", info, population)
        dual = jax.tree.map(lambda h, moved: h + share * moved, state.dual, learned(change))
        return State(average.update(optax.tree.add(change, dual), state.model, info), dual)

    server = Server(
        init=lambda params: State(average.init(params), jax.tree.map(jnp.zeros_like, params) if dual_mean == "all" else ()),
        broadcast=lambda state: average.broadcast(state.model),
        update=update,
    )
    work = ClientWork(init, sgd.start, sgd.step, finish)
    return federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
