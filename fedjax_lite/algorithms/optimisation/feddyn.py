"""FedDyn: a dual variable of each client bends its loss until local and global minima are the same."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting, share_arrived
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.model import learned
from fedjax_lite.refuse import positive
from fedjax_lite.work import gradient_term, sgd_work
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    dual: Tree  # lambda_k
    steps: Tree


class State(NamedTuple):
    """What the server keeps."""

    model: Tree
    dual: Tree  # h, which is -alpha times the mean of all clients' changes so far


def feddyn(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    alpha: Number,
    learning_rate: Any,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedDyn: clients minimise f_k(y) - <lambda_k, y> + alpha/2 |y - x|^2 by steps of SGD.

    y <- y - eta (g_k(y) - lambda_k + alpha (y - x));  lambda_k <- lambda_k - alpha (y_k - x);
    h <- h - alpha/N sum_S (y_k - x);  x <- x + eta_g (mean_S y_k - h/alpha - x).

    The published accuracies are of the mean of all clients' last models; here x is what is evaluated. With few noisy local steps the
    duals can diverge: an uplink that clips, `optax.clip_by_global_norm`, holds them.

    Args:
        alpha: above 0; the paper takes 0.1, 0.01 and 0.001.
        learning_rate: eta; number, tracer or a schedule with its clock.
        aggregator: `fl.aggregators.mean()` by default.
        server_learning_rate: eta_g, 1 in the paper.
        loss_fn, batches, population, uplink, engine: as in `fedavg`.

    Raises:
        ValueError: for an alpha or a server rate that is not positive, an aggregator that weighs clients or is private.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.feddyn(loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2, alpha=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=60, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # the optimum (1 + 15) / 4
    4.0

    Source: Acar et al. 2021, "Federated learning based on dynamic regularization", algorithm 1.
    """
    positive("feddyn", "alpha", alpha)
    aggregator = fitting("feddyn", aggregator, mean(), keeps="dual variables", uniform="h is the mean over all clients' duals")
    average = averaging("feddyn", server_learning_rate)

    def regularizer(y, shared, own):
        return jax.tree.map(lambda y, x, dual: alpha * (y - x) - dual, y, shared.params, own.dual)

    sgd = sgd_work(loss_fn, in_front(gradient_term(regularizer), optax.sgd), learning_rate=learning_rate)

    def init(params, key):
        return Own(jax.tree.map(jnp.zeros_like, params), sgd.init(params, key).steps)

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        return change, Own(jax.tree.map(lambda dual, moved: dual - alpha * moved, own.dual, learned(change)), after.steps), metrics

    def update(change, state, info):
        share = alpha * share_arrived("feddyn", info, population)
        dual = jax.tree.map(lambda h, moved: h - share * moved, state.dual, learned(change))
        return State(average.update(jax.tree.map(lambda moved, h: moved - h / alpha, change, dual), state.model, info), dual)

    server = Server(
        init=lambda params: State(average.init(params), jax.tree.map(jnp.zeros_like, params)),
        broadcast=lambda state: average.broadcast(state.model),
        update=update,
    )
    work = ClientWork(init, sgd.start, sgd.step, finish)
    return federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
