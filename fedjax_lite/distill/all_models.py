"""Methods without a global model: their result is the models of all clients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.base import Algorithm, State, Tree
from fedjax_lite.models.loss_fn import LossFn, call_loss

__all__ = ["mean_over_families", "mean_over_models", "of_all_models"]


def of_all_models(algorithm: Algorithm, params: Callable[[State], Tree], loss_fn: LossFn) -> Algorithm:
    """Let an algorithm's `params` be the clients' models, kept on the device, and `loss_fn` the loss to evaluate them with.

    Where all are of one architecture, `models` gives those of some clients.
    """
    layout = algorithm.layout and algorithm.layout._replace(rows=None)
    alike = hasattr(loss_fn, "of_one")
    models = (lambda state, ids=None: tree.some(params(state), ids)) if alike else None
    return algorithm._replace(params=params, models=models, layout=layout, loss_fn=loss_fn)


def mean_over_models(*loss_fns: LossFn) -> LossFn:
    """Average the loss, and every metric, of each example over all clients' models.

    Args:
        loss_fns: the loss function of the model; or one for each family.

    Returns:
        A loss function of a stack of models `[clients, ...]`, or of a tuple of stacks; for evaluation.

    >>> loss = mean_over_models(lambda params, batch, key: (params - batch) ** 2)
    >>> loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 2.0]), None).tolist()
    [1.0, 2.0]
    """

    def loss_fn(params: Tree, batch: Tree, key: Any, mask: Any = None) -> Any:
        stacks = params if len(loss_fns) > 1 else (params,)
        number = sum(jax.tree.leaves(stack)[0].shape[0] for stack in stacks)
        outputs = [
            jax.vmap(lambda model, fn=fn: call_loss(fn, model, batch, key, mask=mask))(stack)
            for fn, stack in zip(loss_fns, stacks, strict=True)
        ]
        return jax.tree.map(lambda *each: sum(jnp.sum(x, axis=0) for x in each) / number, *outputs)

    if len(loss_fns) == 1:
        setattr(loss_fn, "of_one", loss_fns[0])
    else:
        setattr(loss_fn, "families", len(loss_fns))  # which no client could fine-tune
    return loss_fn


def mean_over_families(*loss_fns: LossFn) -> LossFn:
    """Average the loss, and every metric, of each example over one model of each family.

    Args:
        loss_fns: a loss function for each family.

    Returns:
        A loss function of a tuple of models; for evaluation.

    >>> loss = mean_over_families(lambda params, batch, key: (params - batch) ** 2, lambda params, batch, key: 0 * batch)
    >>> loss((jnp.float32(0), jnp.float32(9)), jnp.array([1.0, 2.0]), None).tolist()
    [0.5, 2.0]
    """
    of_stacks = mean_over_models(*loss_fns)

    def loss_fn(params: Tree, batch: Tree, key: Any, mask: Any = None) -> Any:
        stacks = jax.tree.map(lambda x: x[None], params)
        return of_stacks(stacks if len(loss_fns) > 1 else stacks[0], batch, key, mask)

    setattr(loss_fn, "families", len(loss_fns))
    return loss_fn
