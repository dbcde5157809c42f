"""APFL: each client predicts with a mixture of a model of its own and the global one, and learns how much of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn, loss_and_gradient
from fedjax_lite.models.model import refuse_statistics
from fedjax_lite.refuse import plain
from fedjax_lite.work import sgd_work
from fedjax_lite.work.personal import on_device


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree  # v_k
    alpha: Any
    steps: Tree
    optimizer: Tree = ()
    trained: Tree = ()  # w_k, while it trains


class Carry(NamedTuple):
    """What it holds while it trains."""

    received: Tree  # of w_k
    own: Tree  # of (v_k, alpha_k)


def apfl(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    alpha: Number = 0.5,
    adaptive: bool = True,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""APFL: beside FedAvg's local model w each client trains v, so that the mixture alpha v + (1 - alpha) w fits its examples.

    m = alpha_k v_k + (1 - alpha_k) w_k;  w_k <- w_k - eta g_k(w_k);  v_k <- v_k - eta alpha_k g_k(m);
    alpha_k <- clip(alpha_k - eta <v_k - w_k, g_k(m)>, 0, 1), all three of the values before the step;  x <- x + eta_g sum_k p_k (w_k - x).

    Alpha 0, held, is FedAvg, and 1 training alone. A client whose alpha comes to 0 stays there, since its v learns no more.

    Args:
        alpha: alpha_k at first, in [0, 1].
        adaptive: whether clients learn it, in every step; else it is held.
        learning_rate: eta; number, tracer or a schedule with its clock. All steps are of plain SGD.
        loss_fn, batches, population, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the mixtures of the v_k and the global model.

    Raises:
        ValueError: for an alpha outside [0, 1].

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = apfl(loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2, adaptive=False)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=100, key=jax.random.key(0))
    >>> [round(float(x), 1) for x in (algorithm.params(state), *algorithm.models(state))]  # the global model, and the mixtures
    [5.0, 2.3, 7.7]

    Source: Deng, Kamani, Mahdavi 2020, "Adaptive personalized federated learning", algorithm 1.
    """
    if isinstance(plain(alpha), int | float) and not 0 <= alpha <= 1:
        raise ValueError(f"apfl: alpha must be in [0, 1], got {alpha!r}")

    def gradients(loss_fn, params, batch, key, own):
        v, a = params
        found, g = loss_and_gradient(loss_fn, mixed(a, v, own.trained), batch, key)
        along = optax.tree.vdot(optax.tree.sub(v, own.trained), g) if adaptive else 0.0
        return found, (optax.tree.scale(a, g), jnp.asarray(along, a.dtype))

    sgd = sgd_work(loss_fn, optax.sgd, learning_rate=learning_rate)
    own_sgd = sgd_work(loss_fn, optax.sgd, learning_rate=learning_rate, gradients=gradients)

    def init(params, key):
        refuse_statistics("apfl", params, "models are mixed, which statistics can't be")
        return Own(params, jnp.asarray(alpha, jnp.result_type(float)), sgd.init(params, key).steps)

    def start(shared, own, client):
        return Carry(sgd.start(shared, own, client), own_sgd.start(shared._replace(params=(own.model, own.alpha)), own, client))

    def step(shared, own, carry, batch):
        received, metrics = sgd.step(shared, own, carry.received, batch)
        after, _ = own_sgd.step(shared, own._replace(trained=carry.received.params), carry.own, batch)
        v, a = after.params
        return Carry(received, after._replace(params=(v, jnp.clip(a, 0, 1)))), metrics

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry.received, client)
        v, a = tree.if_finite(carry.own.params, (own.model, own.alpha))
        return change, Own(v, a, after.steps), metrics

    aggregator = weighted_mean() if aggregator is None else aggregator
    work, server = ClientWork(init, start, step, finish, personal=True), averaging("apfl", server_learning_rate)
    built = federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)

    def models(state, ids=None):
        own = tree.some(on_device(state.own), ids)
        mix = lambda a, v: mixed(a, v, built.params(state))  # noqa: E731
        return jax.vmap(mix)(own.alpha, own.model) if jnp.ndim(own.alpha) else mix(own.alpha, own.model)

    return built._replace(models=models)


def mixed(alpha: Any, v: Tree, w: Tree) -> Tree:
    """Return alpha v + (1 - alpha) w.

    >>> mixed(0.25, {"a": 4.0}, {"a": 8.0})
    {'a': 7.0}
    """
    return jax.tree.map(lambda v, w: alpha * v + (1 - alpha) * w, v, w)
