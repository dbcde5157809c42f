"""Leaves of a model that learn in turns."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Tree
from fedjax_lite.leaves import Rule, chosen

__all__ = ["train_leaves"]


def train_leaves(optimizer: Any, turns: Sequence[tuple[Rule, int | None]]) -> Any:
    """Let leaves learn in turns: in each local epoch of a round, only some.

    Of the others neither gradient nor update is other than 0, whatever momentum and weight decay would do.

    Args:
        optimizer: a client's optimizer, or its factory.
        turns: which leaves learn, and for how many local epochs, one turn after another; None: for the rest of the round.

    >>> head_first = train_leaves(optax.sgd(1.0), [("head", 2), ("body", None)])
    >>> gradient = {"body": jnp.ones(()), "head": jnp.ones(())}
    >>> [head_first.update(gradient, head_first.init(gradient), gradient, epoch=epoch)[0]["head"].item() for epoch in (0, 1, 2)]
    [-1.0, -1.0, 0.0]
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        return (lambda rate: train_leaves(optimizer(rate), turns)) if callable(optimizer) else optimizer  # which is refused later
    inner = optax.with_extra_args_support(optimizer)

    def masked(updates: Tree, params: Tree, epoch: Any) -> Tree:
        first, on = 0, jax.tree.map(lambda _: jnp.bool_(False), updates)
        for rule, epochs in turns:
            now = (epoch >= first) & (True if epochs is None else epoch < first + epochs)
            learns = chosen("train_leaves: turns", rule, params, some=False)
            on = jax.tree.map(lambda on, mine, now=now: on | now if mine else on, on, learns)
            first += epochs or 0
        return jax.tree.map(lambda on, x: jnp.where(on, x, 0), on, updates)

    def update(gradient: Tree, state: Tree, params: Tree = None, *, epoch: Any, **beside: Any) -> tuple[Tree, Tree]:
        updates, state = inner.update(masked(gradient, params, epoch), state, params, epoch=epoch, **beside)
        return masked(updates, params, epoch), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
