"""Which leaves of an example a model's prediction reads: labels, and what else is there for the loss, it does not."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr

from fedjax_lite.base import Tree
from fedjax_lite.models.model import Model

__all__ = ["batch_shapes", "read_by"]


def batch_shapes(example: Tree, size: int = 1) -> Tree:
    """Return the shapes of a batch of examples like this one, which has no batch axis."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *jnp.shape(x)), jnp.result_type(x)), example)


def read_by(model: Model, params: Tree, example: Tree) -> Tree:
    """Return the part of an example that a model's prediction depends on; an example without names as it is.

    >>> model = Model(lambda key, example: (), lambda params, batch, key: batch["x"] + len(batch["z"]))
    >>> read_by(model, (), {"x": 1.0, "y": 2.0, "z": 3.0})  # z for its length alone
    {'x': 1.0, 'y': 2.0, 'z': 3.0}
    """
    if not isinstance(example, Mapping):
        return example

    def apply(params: Tree, batch: Tree) -> jax.Array:
        return model.apply(params, batch, None)

    batch = batch_shapes(example)
    jaxpr = jax.make_jaxpr(apply)(params, batch).jaxpr
    _, read = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    flags = jax.tree.unflatten(jax.tree.structure(batch), read[len(jax.tree.leaves(params)) :])
    names = [name for name in example if any(jax.tree.leaves(flags[name]))]
    try:
        jax.eval_shape(apply, params, {name: batch[name] for name in names})
    except (KeyError, ValueError):  # a leaf of which the model reads the shape, or nothing
        return example
    return {name: example[name] for name in names}
