"""FedNova: changes are divided by what a client's own number of steps makes of them, so that no client counts for being fast."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, divisor, fitting, on_change, proximal
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_share, positive
from fedjax_lite.work import sgd_work


def fednova(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    momentum: Number = 0.0,
    mu: Number = 0.0,
    tau_eff: str = "normalised",
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedNova: the average of the clients' normalised changes, times the average of their norms.

    v <- rho v + g_k(y) + mu (y - x);  y <- y - eta v;  d_k = (x - y_k) / (eta |a_k|_1);
    x <- x - eta_g eta tau_eff sum_k p_k d_k,  tau_eff = sum_k p_k |a_k|_1,  p_k = n_k / sum n.

    eta |a_k|_1 is how far the client's steps go under a gradient that is 1 throughout, momentum and proximal term included. It is
    computed with the steps, under any schedule of eta. If all clients take as many steps, and mu is 0, this is FedAvg.

    Args:
        momentum: rho in [0, 1), of local heavy-ball momentum, whose buffer starts at 0 in every round.
        mu: of a proximal term as in `fedprox`; 0 for none. With momentum the term is in the buffer.
        tau_eff: "normalised", the paper's above; "steps": sum_k p_k K_k, as the authors' code has it where mu is not 0.
        learning_rate: eta; number, tracer or a schedule with its clock.
        aggregator: of messages {"params": -d_k, "steps": eta |a_k|_1}, `fl.aggregators.weighted_mean()` by default.
        uplink: as in `fl.federate`, of d_k; the norm is sent as it is.
        loss_fn, batches, population, server_learning_rate, engine: as in `fedavg`. No other optimizer has such a norm.

    Raises:
        ValueError: for a momentum outside [0, 1), a mu below 0, another tau_eff, a server rate that is not positive, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0])}, {"x": jnp.array([5.0] * 4)}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> mean, rate = fl.aggregators.mean(), 1e-3  # one step and four
    >>> algorithm = fl.algorithms.fednova(loss_fn, learning_rate=rate, batches=fl.Batches(1), population=2, aggregator=mean)
    >>> run = jax.jit(lambda: fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=4000, key=jax.random.key(0)))
    >>> round(float(algorithm.params(run()[0])), 2)  # the mean of both clients' optima; FedAvg ends at 4.2
    3.0

    Source: Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated optimization", section 4.
    """
    momentum = a_share("fednova", "momentum", momentum, "[0, 1)")
    positive("fednova", "mu", mu, or_zero=True)
    if tau_eff not in ("normalised", "steps"):
        raise ValueError(f'fednova: tau_eff must be "normalised" or "steps", got {tau_eff!r}')
    aggregator = fitting("fednova", aggregator, weighted_mean(), reports="the length of their steps")
    average = averaging("fednova", server_learning_rate)
    sgd = sgd_work(loss_fn, lambda rate: _normalised(rate, momentum, mu), learning_rate=learning_rate)

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        norm = carry.optimizer[-1]
        change = jax.tree.map(lambda moved: (moved / divisor(norm.length)).astype(moved.dtype), change)
        return {"params": change, "steps": norm.length if tau_eff == "normalised" else norm.taken}, after, metrics

    def update(aggregate, state, info):
        return average.update(jax.tree.map(lambda x: aggregate["steps"] * x, aggregate["params"]), state, info)

    work, server = ClientWork(sgd.init, sgd.start, sgd.step, finish), Server(average.init, average.broadcast, update)
    return federate(work, aggregator, server, batches=batches, population=population, uplink=on_change(uplink), engine=engine)


class Norm(NamedTuple):
    """How far the local steps go under a gradient that is 1 throughout."""

    velocity: Number  # of the momentum buffer
    length: Number  # eta |a|_1
    taken: Number  # the sum of the step sizes, K eta


def _normalised(rate: Any, momentum: Number, mu: Number) -> optax.GradientTransformation:
    """Make the local optimizer: proximal term, momentum, and the norm of both."""

    def lengthen(updates: Tree, state: Norm, params: Tree = None, *, shared: Any, **beside: Any) -> tuple[Tree, Norm]:
        del params, beside
        velocity = momentum * state.velocity + 1 - mu * state.length
        step = rate * shared.rate
        return updates, Norm(velocity, state.length + step * velocity, state.taken + step)

    steps = optax.sgd(rate, momentum=None if isinstance(momentum, float | int) and momentum == 0 else momentum)
    norm = optax.GradientTransformationExtraArgs(lambda params: Norm(*jnp.zeros(3)), lengthen)
    return optax.chain(*([] if isinstance(mu, float | int) and mu == 0 else [proximal(mu)]), steps, norm)
