"""FedLion: local steps along the signs of a momentum, sent as whole numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.aggregators.parts import mapped
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.model import refuse_statistics
from fedjax_lite.refuse import a_share
from fedjax_lite.schedules import Clock, Scheduled
from fedjax_lite.work import sgd_work


class Steps(NamedTuple):
    """The state of the local steps."""

    taken: Tree  # (y - x) / eta, whole numbers
    momentum: Tree  # m_k


class State(NamedTuple):
    """What the server keeps."""

    model: Tree
    momentum: Tree  # m


def fedlion(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    b1: Number = 0.9,
    b2: Number = 0.99,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedLion: clients continue the server's Lion, and send how often they stepped up or down in each coordinate.

    y <- y - eta sign(b1 m_k + (1 - b1) g_k(y));  m_k <- b2 m_k + (1 - b2) g_k(y),  from the server's m;  u_k = (y_k - x) / eta;
    x <- x + eta_g eta mean_S u_k;  m <- mean_S m_k.

    u_k is of whole numbers in [-K, K], of 8 bits where `batches` takes a fixed number of at most 127 steps and of 32 elsewhere.
    The sign of 0 is 0.

    Args:
        learning_rate: eta; number, tracer or `fl.on_round(schedule)`: one for all steps of a round, by which the server multiplies.
        b1, b2: in [0, 1).
        aggregator: of messages {"params": u_k, "momentum": m_k}; `fl.aggregators.mean()` by default. A robust rule takes both parts
            together, or one each: `fl.aggregators.by_part(params=..., momentum=...)`.
        uplink: as in `fl.federate`; it is given u_k in floats, and its compressors decide on the bits.
        loss_fn, batches, population, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for numbers out of range, a schedule of eta on another clock than the round's, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([x])} for x in (4.0, 1.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedlion(loss_fn, learning_rate=0.5, batches=fl.Batches(None, steps=3), population=2, b1=0.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # one client takes three steps up, the other arrives after two: 0.5 (3 + 2) / 2
    1.25

    Source: Tang, Chang 2024, "FedLion: faster adaptive federated optimization with fewer communication", algorithm 1.
    """
    if isinstance(learning_rate, Scheduled) and learning_rate.clock != "round":
        raise ValueError(
            "fedlion: the server multiplies whole numbers of steps by one learning_rate a round: give fl.on_round, "
            f"not {learning_rate.clock!r}"
        )
    b1, b2 = a_share("fedlion", "b1", b1, "[0, 1)"), a_share("fedlion", "b2", b2, "[0, 1)")
    aggregator = fitting("fedlion", aggregator, mean(), reports="their momentum")
    average = averaging("fedlion", server_learning_rate)
    whole = jnp.int8 if isinstance(batches.steps, int) and batches.steps <= 127 else jnp.int32
    sgd = sgd_work(loss_fn, lambda rate: _lion(rate, b1, b2, whole), learning_rate=learning_rate)

    def in_floats(message):
        wide = lambda n, m: n.astype(jnp.promote_types(m.dtype, jnp.float32))  # noqa: E731
        return message | {"params": jax.tree.map(wide, message["params"], message["momentum"])}

    def start(shared, own, client):
        carry = sgd.start(shared, own, client)
        return carry._replace(optimizer=carry.optimizer._replace(momentum=shared.extra))

    def finish(shared, own, carry, client):
        _, after, metrics = sgd.finish(shared, own, carry, client)
        message = {"params": carry.optimizer.taken, "momentum": carry.optimizer.momentum}
        return message if uplink is None else in_floats(message), after, metrics

    def update(aggregate, state, info):
        rate = learning_rate(Clock(info.round)) if isinstance(learning_rate, Scheduled) else learning_rate
        change = optax.tree.scale(rate, aggregate["params"])
        return State(average.update(change, state.model, info), aggregate["momentum"])

    def init(params):
        refuse_statistics("fedlion", params, "clients send whole numbers of steps")
        return State(average.init(params), jax.tree.map(jnp.zeros_like, params))

    server = Server(
        init=init,
        broadcast=lambda state: average.broadcast(state.model)._replace(extra=state.momentum),
        update=update,
    )
    work, rule = ClientWork(sgd.init, start, sgd.step, finish), mapped(in_floats, aggregator)
    return federate(work, rule, server, batches=batches, population=population, uplink=uplink, engine=engine)


def _lion(rate: Any, b1: Number, b2: Number, whole: Any) -> optax.GradientTransformation:
    """Make the local steps, which count themselves in the dtype `whole`."""

    def init(params: Tree) -> Steps:
        return Steps(jax.tree.map(lambda x: jnp.zeros_like(x, whole), params), jax.tree.map(jnp.zeros_like, params))

    def update(gradient: Tree, state: Steps, params: Tree = None) -> tuple[Tree, Steps]:
        del params
        signs = jax.tree.map(lambda m, g: jnp.sign(b1 * m + (1 - b1) * g), state.momentum, gradient)
        taken = jax.tree.map(lambda n, sign: n - sign.astype(whole), state.taken, signs)
        momentum = jax.tree.map(lambda m, g: (b2 * m + (1 - b2) * g).astype(m.dtype), state.momentum, gradient)
        return jax.tree.map(lambda sign, g: (-rate * sign).astype(g.dtype), signs, gradient), Steps(taken, momentum)

    return optax.GradientTransformation(init, update)
