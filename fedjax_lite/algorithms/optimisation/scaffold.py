"""SCAFFOLD: control variates of the server and of every client take the clients' drift out of their steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, counted_sgd, divisor, fitting, share_arrived
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.work import gradient_term, sgd_work
from fedjax_lite.work.sgd import mean_gradient
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    control: Tree  # c_k
    steps: Tree


class State(NamedTuple):
    """What the server keeps."""

    model: Tree
    control: Tree  # c


def scaffold(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    option: int = 2,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""SCAFFOLD: local steps of SGD whose gradients are corrected by c - c_k.

    y <- y - eta (g_k(y) - c_k + c);  option 1: c_k^+ = grad f_k(x),  option 2: c_k^+ = c_k - c + (x - y) / sum of the step sizes;
    x <- x + eta_g mean_S (y_k - x);  c <- c + |S|/N mean_S (c_k^+ - c_k).

    After every round c is the mean of all N c_k: |S| counts the clients whose messages arrived, and the others keep their c_k.

    Args:
        option: 1 or 2, the paper's I and II; 1 makes one more pass over the client's examples.
        learning_rate: eta; number, tracer or a schedule with its clock. The clients' steps are of plain SGD.
        aggregator: of messages {"params": y_k - x, "control": c_k^+ - c_k}; `fl.aggregators.mean()` by default. A robust rule takes both
            parts together, or one each: `fl.aggregators.by_part(params=..., control=...)`.
        loss_fn, batches, population, uplink, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for another option, a server rate that is not positive, an aggregator that weighs clients or is private.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.scaffold(loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=40, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # the optimum (1 + 15) / 4; FedAvg ends at 3.68
    4.0

    Source: Karimireddy et al. 2020, "SCAFFOLD: stochastic controlled averaging for federated learning", algorithm 1.
    """
    if option not in (1, 2):
        raise ValueError(f"scaffold: option must be 1 (the gradient at x) or 2 (of the local steps), got {option!r}")
    uniform = "c is the mean of all clients' c_k"
    aggregator = fitting("scaffold", aggregator, mean(), keeps="control variates", uniform=uniform)
    average = averaging("scaffold", server_learning_rate)
    correction = gradient_term(lambda y, shared, own: optax.tree.sub(shared.extra, own.control))
    sgd = sgd_work(loss_fn, in_front(correction, counted_sgd), learning_rate=learning_rate, full_gradient=option == 1)

    def init(params, key):
        return Own(jax.tree.map(jnp.zeros_like, params), sgd.init(params, key).steps)

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        if option == 1:
            moved = optax.tree.sub(mean_gradient(carry), own.control)
        else:
            taken = divisor(carry.optimizer[-1].total)
            moved = jax.tree.map(lambda c, change: -c - change / taken, shared.extra, change)
        return {"params": change, "control": moved}, Own(optax.tree.add(own.control, moved), after.steps), metrics

    def update(aggregate, state, info):
        share = share_arrived("scaffold", info, population)
        control = jax.tree.map(lambda c, moved: c + share * moved, state.control, aggregate["control"])
        return State(average.update(aggregate["params"], state.model, info), control)

    server = Server(
        init=lambda params: State(average.init(params), jax.tree.map(jnp.zeros_like, params)),
        broadcast=lambda state: average.broadcast(state.model)._replace(extra=state.control),
        update=update,
    )
    batches = batches._replace(before=1) if option == 1 else batches
    work = ClientWork(init, sgd.start, sgd.step, finish)
    return federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
