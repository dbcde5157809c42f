"""Terms on the local gradient and on the local loss: most methods of federated optimisation are FedAvg with one of them."""

from collections.abc import Callable, Set
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Mean, Tree
from fedjax_lite.models.loss_fn import LossFn, call_loss, facts_asked, losses_and_metrics, with_facts

__all__ = ["gradient_term", "in_front", "loss_term"]


def gradient_term(term: Callable[[Tree, Any, Any], Tree]) -> optax.GradientTransformationExtraArgs:
    """A term on the local gradient: a transformation for the front of a client's optimizer.

    g_k(y) <- g_k(y) + term(y, x, own_k).

    Args:
        term: `(params, shared, own) -> tree` like the parameters: the local model, what the server sent (`shared.params` is the model
            where the client started, `shared.extra` what else was sent), and what the client keeps.

    Returns:
        An optax transformation without state: `optax.chain(fl.gradient_term(...), optax.sgd(0.1))`.

    >>> import fedjax_lite as fl
    >>> toward_start = fl.gradient_term(lambda params, shared, own: 0.5 * (params - shared.params))
    >>> gradient, _ = toward_start.update(1.0, toward_start.init(3.0), 3.0, shared=fl.Shared(1.0), own=())
    >>> gradient  # 1 + 0.5 (3 - 1)
    2.0
    """
    if not callable(term):
        raise TypeError(f"gradient_term: term must be a function (params, shared, own) -> tree like params, got {term!r}")

    def update(gradient, state, params=None, *, shared, own, **beside):
        del beside
        return jax.tree.map(lambda g, more: g + more, gradient, term(params, shared, own)), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def in_front(transformation: optax.GradientTransformation, optimizer: Any) -> Any:
    """Put a transformation in front of an optimizer, or of what a factory makes of a rate.

    >>> clipped = in_front(optax.clip(1.0), optax.sgd)(0.5)
    >>> clipped.update(jnp.array(9.0), clipped.init(jnp.zeros(())))[0].item()
    -0.5
    """
    if isinstance(optimizer, optax.GradientTransformation):
        return optax.chain(transformation, optimizer)
    return (lambda rate: optax.chain(transformation, optimizer(rate))) if callable(optimizer) else optimizer  # which is refused later


def loss_term(loss_fn: LossFn, term: LossFn) -> LossFn:
    """A term on the local loss: added in training, left out in evaluation.

    f_k(y; z) <- f_k(y; z) + term(y; z).

    Args:
        loss_fn: as in `fl.sgd_work`.
        term: a function like `loss_fn`, whose losses are added and whose metrics are reported beside; a scalar is added to every
            example's loss. It may take the same further arguments, such as `shared` and `own`.

    Returns:
        A loss function, whose loss in training is the sum.

    Raises:
        ValueError: while training, for a metric that both report.

    >>> import fedjax_lite as fl
    >>> small = lambda params, batch, key, shared: (params - shared.params) ** 2 / 2
    >>> loss_fn = fl.loss_term(lambda params, batch, key: params * batch["x"], small)
    >>> losses, _ = loss_fn(jnp.array(3.0), {"x": jnp.ones(2)}, None, shared=fl.Shared(1.0))  # in training
    >>> evaluated, _ = loss_fn(jnp.array(3.0), {"x": jnp.ones(2)}, None)
    >>> losses.tolist(), evaluated.tolist()
    ([5.0, 5.0], [3.0, 3.0])
    """

    def both(params, batch, key, **beside):
        losses, metrics, *statistics = losses_and_metrics(call_loss(loss_fn, params, batch, key, **beside))
        if beside.get("shared") is None:
            return losses, metrics, *statistics
        more, told, *_ = losses_and_metrics(call_loss(term, params, batch, key, **beside))
        if twice := metrics.keys() & told.keys():
            raise ValueError(f"loss_term: loss_fn and term both report {', '.join(sorted(twice))}: rename one")
        return _plus(losses, more), metrics | told, *statistics

    return asking(both, facts_asked(loss_fn) | facts_asked(term) | {"shared"}, loss_fn)


def asking(function: LossFn, facts: Set[str], like: LossFn) -> LossFn:
    """Give a loss function written with `**beside` the signature of one that takes these facts, and the attributes of `like`."""
    return with_facts(wraps(like)(function), facts)


def _plus(losses: Any, more: Any) -> Any:
    """Add a term, of each example or a scalar, to losses, which may be a `Mean`."""
    if isinstance(losses, Mean):
        return losses._replace(total=losses.total + more * losses.count)
    return losses + jnp.broadcast_to(more, jnp.shape(losses))
