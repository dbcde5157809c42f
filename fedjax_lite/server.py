"""Servers broadcast the global model and change it by an aggregate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.base import Number, Server, Shared, Tree
from fedjax_lite.models.model import learned, with_statistics_of
from fedjax_lite.optimizer_state import needs_value
from fedjax_lite.schedules import Clock, Scheduled, transformation_at

__all__ = ["adaptive_rate", "optimizer_server"]


class OptimizerState(NamedTuple):
    """The global model and the server optimizer's state."""

    params: Tree
    optimizer: Tree


def optimizer_server(optimizer: Any, *, learning_rate: Any = None, value: str = "initial_loss") -> Server:
    r"""The server takes one step of any optax optimizer, with minus the aggregate as its gradient.

    x <- x + U(-aggregate). FedAvg is `optax.sgd(1.0)`, FedAvgM `optax.sgd(1.0, momentum=0.9)`.

    Args:
        optimizer: an optax transformation, or with `learning_rate` its factory. Its state lives as long as the run, so an
            optax schedule inside it counts the server's updates.
        learning_rate: number, tracer, or `fl.on_round(schedule)`.
        value: the round's metric given to the optimizer as `value`, for instance to `optax.contrib.reduce_on_plateau`.
            "initial_loss" is the loss before this round's training. Nothing is given where clients are private.

    Raises:
        ValueError: for a rate on another clock than the round's, a metric that the round does not have, or an optimizer that needs a
            metric where clients are private.

    >>> server = optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=5)))

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 1.
    """
    if isinstance(learning_rate, Scheduled) and learning_rate.clock != "round":
        raise ValueError(f"optimizer_server: the server takes one step a round, so give fl.on_round, not {learning_rate.clock!r}")
    optimizer_at = transformation_at(optimizer, learning_rate)

    def init(params):
        return OptimizerState(params, optimizer_at(Clock(0)).init(params))

    def broadcast(state):
        return Shared(state.params)

    def update(aggregate, state, info):
        if value != "initial_loss" and value not in info.metrics:
            raise ValueError(f"optimizer_server: no metric {value!r} to give as value; the round has {', '.join(info.metrics) or 'none'}")
        check_like(aggregate, state.params)
        extra = {"value": info.metrics[value]} if value in info.metrics else {}
        # Running statistics move no optimizer either, such as one that clips by the norm of all leaves.
        gradient = tree.cast_like(optax.tree.scale(-1, learned(aggregate)), state.params)
        with needs_value("optimizer_server", bool(extra)):
            updates, optimizer_state = optimizer_at(Clock(info.round)).update(
                gradient, state.optimizer, state.params, round=info.round, key=info.key, **extra
            )
        updates = with_statistics_of(aggregate, updates)  # they are averaged, whatever the optimizer
        return OptimizerState(optax.apply_updates(state.params, updates), optimizer_state)

    return Server(init, broadcast, update)


def check_like(aggregate: Tree, params: Tree) -> None:
    """Refuse an aggregate whose leaves differ from the model's in path or shape: jax would broadcast them, or raise an unclear error.

    Raises:
        ValueError: naming the leaves and shapes of both.
    """
    leaves = [jax.tree_util.tree_leaves_with_path(tree) for tree in (aggregate, params)]
    both = [[(jax.tree_util.keystr(path), jnp.shape(x)) for path, x in each] for each in leaves]
    if both[0] != both[1]:
        shown = [", ".join(f"{name or 'an array'} {list(shape)}" for name, shape in each) for each in both]
        raise ValueError(f"optimizer_server: the aggregate has {shown[0]}, the model {shown[1]}: an aggregator returns one message's tree")


class AdaptiveRateState(NamedTuple):
    """The inner server's state, the factor on the clients' rates, and the last gradient norm (NaN before the first)."""

    server: Tree
    rate: Array
    norm: Array


def adaptive_rate(server: Server, *, power: Number = 1.0, smallest: Number = 0.01, largest: Number = 1.0) -> Server:
    r"""Wrap a server so that the clients' rate follows the change of their gradient norms between rounds.

    rate_0 = 1;  rate_{t+1} = clip(rate_t (g_t / g_{t-1})^power, smallest, largest), g_t the mean norm of the clients'
    first gradients in round t. The factor multiplies every client's learning rate: it falls as gradients vanish, and
    rises, up to `largest`, where they grow. With a negative power it moves against the norms.

    Args:
        server: any server; its broadcast must have the field `rate`.
        power: how strongly the rate reacts; 0 switches it off.
        smallest, largest: bounds on the factor.

    Raises:
        ValueError: if the client work does not report "gradient_norm" (`sgd_work(..., gradient_norm=True)` does).

    >>> import fedjax_lite as fl
    >>> server = fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)))
    >>> state = server.init(jnp.zeros(()))
    >>> for norm in (4.0, 2.0, 1.0):
    ...     state = server.update(jnp.ones(()), state, fl.Info(0, None, {"gradient_norm": jnp.float32(norm)}))
    ...     float(server.broadcast(state).rate)
    1.0
    0.5
    0.25
    """
    if isinstance(smallest, int | float) and isinstance(largest, int | float) and not 0 < smallest <= largest:
        raise ValueError(f"adaptive_rate needs 0 < smallest <= largest, got smallest={smallest}, largest={largest}")

    def init(params):
        return AdaptiveRateState(server.init(params), jnp.ones(()), jnp.asarray(jnp.nan, jnp.result_type(float)))

    def broadcast(state):
        return server.broadcast(state.server)._replace(rate=state.rate)

    def update(aggregate, state, info):
        if "gradient_norm" not in info.metrics:
            raise ValueError("adaptive_rate needs the metric gradient_norm: build the client work with sgd_work(..., gradient_norm=True)")
        norm = info.metrics["gradient_norm"].astype(state.norm.dtype)
        known = (norm > 0) & (state.norm > 0)
        ratio = jnp.where(known, norm, 1.0) / jnp.where(known, state.norm, 1.0)  # both guarded: gradients pass through here
        rate = jnp.clip(state.rate * ratio**power, smallest, largest)
        return AdaptiveRateState(server.update(aggregate, state.server, info), rate, norm)

    return Server(init, broadcast, update, uses_metrics=True)
