"""What the methods share: the step along the aggregate, steps that add up their sizes, the loss of x, pairs that do not fit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Aggregator, Algorithm, Batch, Client, ClientWork, Info, Key, Mean, Number, Server, State, Tree
from fedjax_lite.models.loss_fn import LossFn, loss_and_gradient
from fedjax_lite.refuse import plain, positive
from fedjax_lite.schedules import Scheduled
from fedjax_lite.server import optimizer_server
from fedjax_lite.work import gradient_term


def averaging(name: str, server_learning_rate: Any, optimizer: Callable[[Any], optax.GradientTransformation] = optax.sgd) -> Server:
    """Make the server x <- x + eta_g Delta, or that of another optimizer; refuse a rate that is not positive.

    >>> server = averaging("fedavg", 0.5)
    >>> import fedjax_lite as fl
    >>> float(server.update(jnp.array(2.0), server.init(jnp.array(1.0)), fl.Info(0, None, {})).params)
    2.0
    """
    if callable(server_learning_rate) and not isinstance(server_learning_rate, Scheduled):
        raise ValueError(f"{name}: server_learning_rate is a schedule without a clock ({server_learning_rate!r}): wrap it in fl.on_round")
    if not isinstance(server_learning_rate, Scheduled):
        positive(name, "server_learning_rate", server_learning_rate)
    return optimizer_server(optimizer, learning_rate=server_learning_rate)


def fitting(name: str, aggregator: Any, default: Aggregator, *, keeps: str = "", reports: str = "", uniform: str = "") -> Aggregator:
    """Return the aggregator, or the default; refuse one that the method `name` does not fit.

    Args:
        keeps: what the method's clients keep between rounds; then no private aggregator.
        reports: what its clients send beside the change of the model; then no private aggregator.
        uniform: why its clients must all count the same, if they must.
    """
    if aggregator is None:
        return default
    if not isinstance(aggregator, Aggregator):
        raise TypeError(f"{name}: aggregator must be a fl.Aggregator, got {aggregator!r}: call the function that makes one")
    if aggregator.privacy is not None and keeps:
        raise ValueError(
            f"{name}: clients keep {keeps}, which carry one round's data into later rounds, past the sampling that the guarantee of a "
            "private aggregator rests on: take a method without such state, for instance fedavg"
        )
    if aggregator.privacy is not None and reports:
        raise ValueError(
            f"{name}: clients send {reports} beside the model's change, and a private aggregator would clip and drown them together: take "
            "a method that sends the change alone, for instance fedavg"
        )
    if aggregator.weighs and uniform:
        raise ValueError(f"{name}: {uniform}, so clients must all count the same: take fl.aggregators.mean() or another unweighted rule")
    return aggregator


def of_everyone(algorithm: Algorithm, population: int, refusal: Callable[[int], str]) -> Algorithm:
    """Let an algorithm refuse a cohort with fewer slots than there are clients, by what `refusal` says of their number.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0])}])
    >>> built = fl.algorithms.fedsgd(lambda params, batch, key: params * batch["x"], population=2)
    >>> whole = of_everyone(built, 2, lambda slots: f"{slots} of 2 clients take part")
    >>> whole.round(None, data, fl.sampling.cohort(jax.random.key(0), data.size, jnp.arange(1)))
    Traceback (most recent call last):
    ValueError: 1 of 2 clients take part
    """

    def round(state: Any, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
        if (slots := cohort.id.shape[0]) < population == data.population:  # of other data the round says so itself
            raise ValueError(refusal(slots))
        return algorithm.round(state, data, cohort)

    return algorithm._replace(round=round)


def share_arrived(name: str, info: Info, population: int) -> Any:
    """Return |S| / N of the clients whose messages arrived; refuse clients who hide their data, of whom |S| is not known.

    >>> share_arrived("scaffold", Info(0, None, {"loss": jnp.ones(())}, 3.0), 4)
    0.75
    """
    if not info.metrics:  # which clients report wherever they hide nothing
        raise ValueError(
            f"{name}: the server divides by the number of clients whose messages arrived, which is hidden under an uplink that hides the "
            "clients' data: take a method that needs no such number, for instance fedavg or fedcm"
        )
    return info.clients / population


def on_change(uplink: optax.GradientTransformation | None) -> optax.GradientTransformation | None:
    """Let an uplink have the model's change, "params", and send the message's other parts, single numbers, as they are.

    >>> halved = on_change(optax.scale(0.5))
    >>> message = {"params": jnp.array(3.0), "steps": jnp.array(4.0)}
    >>> [float(x) for x in halved.update(message, halved.init(message))[0].values()]
    [1.5, 4.0]
    """
    if not isinstance(uplink, optax.GradientTransformation):
        return uplink  # which is refused later
    inner = optax.with_extra_args_support(uplink)

    def update(message: Tree, state: Tree, params: Tree = None, **beside: Any) -> tuple[Tree, Tree]:
        change, state = inner.update(message["params"], state, params, **beside)
        return message | {"params": change}, state

    return optax.GradientTransformationExtraArgs(lambda message: inner.init(message["params"]), update)


def starting_from(first: Callable[[Tree, Key], Tree], algorithm: Algorithm) -> Algorithm:
    """Let an algorithm start from what `first` makes of the parameters that it is given, and of the run's key.

    >>> import fedjax_lite as fl
    >>> algorithm = fl.algorithms.fedsgd(lambda params, batch, key: params * batch["x"], population=1, learning_rate=0.1)
    >>> doubled = starting_from(lambda params, key: 2 * params, algorithm)
    >>> float(doubled.params(doubled.init(jnp.array(3.0), jax.random.key(0))))
    6.0
    """

    def init(params: Tree, key: Key) -> State:
        return algorithm.init(first(params, key), key)

    layout = algorithm.layout
    if layout is None or (rows := layout.rows) is None:
        return algorithm._replace(init=init)
    return algorithm._replace(init=init, layout=layout._replace(rows=lambda params, key, ids: rows(first(params, key), key, ids)))


def divisor(taken: Number) -> Any:
    """Return a sum of step sizes, or 1 where it is 0: an empty slot took no step, and by 0 its quotient would have no derivative.

    >>> divisor(jnp.array([0.5, 0.0])).tolist()
    [0.5, 1.0]
    """
    return jnp.where(taken == 0, 1, taken)


def proximal(mu: Number) -> optax.GradientTransformation:
    """Make the proximal term mu (y - x) on the local gradient.

    >>> import fedjax_lite as fl
    >>> float(proximal(0.5).update(jnp.array(1.0), (), jnp.array(3.0), shared=fl.Shared(jnp.array(1.0)), own=())[0])  # 1 + 0.5 (3 - 1)
    2.0
    """
    return gradient_term(lambda y, shared, own: optax.tree.scale(mu, optax.tree.sub(y, shared.params)))


class Taken(NamedTuple):
    """The state of `counted_sgd`."""

    total: Number  # the sum of the step sizes so far


def counted_sgd(rate: Any) -> optax.GradientTransformationExtraArgs:
    """SGD whose state is the sum of its step sizes: K eta, whatever the schedule, where a formula divides by it.

    >>> import fedjax_lite as fl
    >>> sgd = counted_sgd(0.1)
    >>> _, state = sgd.update(jnp.ones(()), sgd.init(()), shared=fl.Shared(()))
    >>> round(float(sgd.update(jnp.ones(()), state, shared=fl.Shared(()))[1].total), 6)
    0.2
    """

    def update(gradient: Tree, state: Taken, params: Tree = None, *, shared: Any, **beside: Any) -> tuple[Tree, Taken]:
        del params, beside
        return jax.tree.map(lambda g: (-rate * g).astype(g.dtype), gradient), Taken(state.total + rate * shared.rate)

    return optax.GradientTransformationExtraArgs(lambda params: Taken(jnp.zeros(())), update)


def sharpness_aware(name: str, rho: Number, a: Number = 1.0) -> Callable | None:
    """Make the gradient (1 - a) g(y) + a g(y + rho g(y) / |g(y)|) for `sgd_work`; None, its own, for a rho of 0.

    Both are of one batch and one key, and the norm is of the whole tree.

    >>> import fedjax_lite as fl
    >>> batch = fl.Batch({"x": jnp.array([1.0])}, jnp.array([True]), 0, 0, 0)
    >>> gradients = sharpness_aware("fedsam", rho=0.5)
    >>> float(gradients(lambda y, batch, key: (y - batch["x"]) ** 2 / 2, jnp.array(3.0), batch, None)[1])  # of (y - 1) at 3.5
    2.5
    """
    positive(name, "rho", rho, or_zero=True)
    if isinstance(plain(rho), int | float) and rho == 0:
        return None

    def gradients(loss_fn: LossFn, y: Tree, batch: Batch, key: Key) -> tuple[Any, Tree]:
        found, g = loss_and_gradient(loss_fn, y, batch, key)
        scale = rho / (optax.tree.norm(g) + 1e-12)
        uphill = loss_and_gradient(loss_fn, jax.tree.map(lambda y, g: (y + scale * g).astype(y.dtype), y, g), batch, key)[1]
        return found, jax.tree.map(lambda g, up: ((1 - a) * g + a * up).astype(g.dtype), g, uphill)

    return gradients


class Received(NamedTuple):
    """The carry of `with_loss_received`."""

    work: Tree
    loss: Mean


def with_loss_received(sgd: ClientWork) -> ClientWork:
    """Wrap SGD work of `initial_loss="pass"`, so that its message is {"params": y_k - x, "loss": F_k(x)}."""

    def start(shared, own, client):
        return Received(sgd.start(shared, own, client), Mean(jnp.zeros(()), jnp.zeros(())))

    def step(shared, own, carry, batch):
        work, metrics = sgd.step(shared, own, carry.work, batch)
        return Received(work, jax.tree.map(jnp.add, carry.loss, metrics["initial_loss"])), metrics

    def finish(shared, own, carry, client):
        change, own, metrics = sgd.finish(shared, own, carry.work, client)
        return {"params": change, "loss": carry.loss.value()}, own, metrics

    return ClientWork(sgd.init, start, step, finish)
