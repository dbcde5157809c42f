"""Mime and MimeLite: clients take the steps that a centralised optimizer would, with its statistics, which the server alone changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.in_turn import in_turn
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn, loss_and_gradient
from fedjax_lite.refuse import a_share
from fedjax_lite.work import gradient_term, sgd_work
from fedjax_lite.work.sgd import mean_gradient


def mime(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    beta: Number = 0.9,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Mime: local steps with the server's momentum, which stays as it is, and gradients corrected by one over all examples.

    c = sum_k p_k grad f_k(x);  g <- g_k(y; b) - g_k(x; b) + c;  y <- y - eta ((1 - beta) g + beta m);
    x <- x + eta_g sum_k p_k (y_k - x);  m <- (1 - beta) c + beta m,  p_k = n_k / sum n over the cohort.

    The cohort answers twice in a round: each client sends its gradient at x over all of its examples, is sent their mean c, and then
    trains. Both gradients of a step are of one batch and one key. With beta = 0 this is SVRG over the cohort.

    Args:
        beta: in [0, 1), of the momentum m, which is a mean of gradients: with beta = 0.9 a step is a tenth of a new gradient.
        learning_rate: eta; number, tracer or a schedule with its clock.
        aggregator: of the gradients, and of the changes; each has a state of its own. `fl.aggregators.weighted_mean()` by default.
        uplink: of both messages.
        loss_fn, batches, population, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm`; its "downlink_bits" count x twice, once in each exchange.

    Raises:
        ValueError: for a beta outside [0, 1), a server rate that is not positive, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.mime(loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2, beta=0.5)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=40, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # the optimum (1 + 15) / 4; FedAvg ends at 3.68
    4.0

    Source: Karimireddy et al. 2021, "Breaking the centralized barrier for cross-device federated learning", algorithm 1 (Mime).
    """

    def corrected(loss_fn, params, batch, key, shared):
        """The batch's loss and its gradient, less the gradient at x on the same batch, and c."""
        loss, here = loss_and_gradient(loss_fn, params, batch, key)
        _, there = loss_and_gradient(loss_fn, shared.params, batch, key)
        return loss, jax.tree.map(lambda g, at_x, c: g - at_x + c, here, there, shared.extra.gradient)

    return _in_two_exchanges(
        "mime", corrected, lambda state: Sent(state.momentum, state.gradient), loss_fn, learning_rate, beta, aggregator,
        server_learning_rate, dict(batches=batches, population=population, uplink=uplink, engine=engine),
    )  # fmt: skip


def mimelite(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    beta: Number = 0.9,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""MimeLite: Mime without the correction of local gradients.

    y <- y - eta ((1 - beta) g_k(y; b) + beta m);  x <- x + eta_g sum_k p_k (y_k - x);  m <- (1 - beta) c + beta m,
    c = sum_k p_k grad f_k(x).

    Args:
        loss_fn, batches, population, learning_rate, beta, aggregator, uplink, server_learning_rate, engine: as in `mime`.

    Returns:
        An `Algorithm`; its "downlink_bits" count x twice, once in each exchange.

    Raises:
        ValueError: for a beta outside [0, 1), a server rate that is not positive, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}])
    >>> loss_fn = lambda params, batch, key: params * batch["x"]
    >>> algorithm = fl.algorithms.mimelite(loss_fn, learning_rate=0.1, batches=fl.Batches(None), population=1, beta=0.5)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # -0.1 of half of 2; then of half of 2 and half of the momentum, half of 2
    -0.25

    Source: Karimireddy et al. 2021, "Breaking the centralized barrier for cross-device federated learning", algorithm 1 (MimeLite).
    """
    return _in_two_exchanges(
        "mimelite", loss_and_gradient, lambda state: Sent(state.momentum), loss_fn, learning_rate, beta, aggregator,
        server_learning_rate, dict(batches=batches, population=population, uplink=uplink, engine=engine),
    )  # fmt: skip


class Sent(NamedTuple):
    """What clients are sent beside x."""

    momentum: Tree  # m
    gradient: Tree = ()  # c


class State(NamedTuple):
    """What the server keeps."""

    model: Tree
    momentum: Tree  # m
    gradient: Tree  # c of the round


def _in_two_exchanges(
    name: str, gradients: Callable, sent: Callable[[State], Sent], loss_fn: LossFn, rate: Any, beta: Number,
    aggregator: Aggregator | None, server_learning_rate: Any, others: dict[str, Any],
) -> Algorithm:  # fmt: skip
    """Compose the exchange of gradients and that of changes over one server."""
    beta = a_share(name, "beta", beta, "[0, 1)")
    aggregator = fitting(name, aggregator, weighted_mean(), reports="their gradients")
    average = averaging(name, server_learning_rate)
    whole = sgd_work(loss_fn, optax.sgd(0.0), full_gradient=True)
    momentum = gradient_term(lambda y, shared, own: optax.tree.scale(beta, shared.extra.momentum))
    local = sgd_work(
        loss_fn, lambda rate: optax.chain(optax.scale(1 - beta), momentum, optax.sgd(rate)), learning_rate=rate, gradients=gradients
    )

    def finish(shared, own, carry, client):
        _, after, metrics = whole.finish(shared, own, carry, client)
        return mean_gradient(carry), after, metrics

    def init(params):
        nothing = jax.tree.map(jnp.zeros_like, params)
        return State(average.init(params), nothing, nothing)

    def move(change, state, info):
        m = jax.tree.map(lambda c, m: (1 - beta) * c + beta * m, state.gradient, state.momentum)
        return State(average.update(change, state.model, info), m, state.gradient)

    def broadcast(state):
        return Shared(state.model.params)

    ask = Server(init, broadcast, lambda gradient, state, info: state._replace(gradient=gradient))
    train = Server(init, lambda state: broadcast(state)._replace(extra=sent(state)), move)
    asked = others | {"batches": Batches(others["batches"].size, steps=1, before=1)}  # a pass over all examples, and no step that moves
    return in_turn(
        federate(ClientWork(whole.init, whole.start, whole.step, finish), aggregator, ask, **asked),
        federate(local, aggregator, train, **others),
    )
