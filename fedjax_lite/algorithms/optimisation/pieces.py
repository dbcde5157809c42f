"""What the methods share: a server's step along the aggregate, steps of SGD that add up their sizes, and pairs that do not fit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Aggregator, Number, Server, Tree
from fedjax_lite.refuse import positive
from fedjax_lite.schedules import Scheduled
from fedjax_lite.server import optimizer_server


def averaging(name: str, server_learning_rate: Any, *before: optax.GradientTransformation) -> Server:
    """Make the server x <- x + eta_g Delta, or with transformations of Delta `before`; refuse a rate that is not positive.

    >>> server = averaging("fedavg", 0.5)
    >>> import fedjax_lite as fl
    >>> float(server.update(jnp.array(2.0), server.init(jnp.array(1.0)), fl.Info(0, None, {})).params)
    2.0
    """
    if not isinstance(server_learning_rate, Scheduled):
        positive(name, "server_learning_rate", server_learning_rate)
    return optimizer_server(lambda rate: optax.chain(*before, optax.sgd(rate)), learning_rate=server_learning_rate)


def fitting(
    name: str, aggregator: Aggregator | None, default: Aggregator, *, keeps: str = "", reports: str = "", uniform: str = ""
) -> Aggregator:
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


def divisor(taken: Number) -> Any:
    """Return a sum of step sizes, or 1 where it is 0: an empty slot took no step, and by 0 its quotient would have no derivative.

    >>> divisor(jnp.array([0.5, 0.0])).tolist()
    [0.5, 1.0]
    """
    return jnp.where(taken == 0, 1, taken)


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
