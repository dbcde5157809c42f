"""Which leaves of an example a model's prediction reads: labels, and what else is there for the loss, it does not."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr

from fedjax_lite.base import Tree
from fedjax_lite.models.model import Model

__all__ = ["batch_shapes", "by_name", "read_by"]


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


def by_name(function: str, inputs: Any, like: Mapping[str, Any], strict: bool = False) -> dict[str, Any]:
    """Return inputs as a batch of the leaves that a model reads.

    Args:
        function: for errors.
        inputs: a batch, in which more leaves may be, or the array of the only leaf.
        like: name -> shape of a batch; None for an unknown one.
        strict: whether all sizes but the number of examples must be those of `like`, and precision is cast to its.

    Raises:
        ValueError: for leaves that are missing, an array where several are needed, and other shapes, such as one without a batch axis.

    >>> by_name("predict", jnp.ones((2, 3)), {"x": jax.ShapeDtypeStruct((1, 3), "float32")})["x"].shape
    (2, 3)
    """
    if not isinstance(inputs, Mapping):
        if len(like) != 1:
            raise ValueError(f"{function}: the model reads the leaves {', '.join(like)}: give a dict of them")
        inputs = {next(iter(like)): inputs}
    for name in like:
        if name not in inputs:
            raise ValueError(f"{function}: the model reads the leaf {name!r}, and the batch has {', '.join(map(str, inputs)) or 'none'}")
    return {name: _array(f"{function}: {name}", inputs[name], like[name], strict) for name in like}


def _array(what: str, x: Any, like: Any, strict: bool) -> Any:
    """Return an input as an array, once its shape is that of a batch; a tree of inputs as it is."""
    if not isinstance(like, jax.ShapeDtypeStruct):
        return jax.tree.map(jnp.asarray, x)
    x = jnp.asarray(x)
    if x.ndim != len(like.shape) or strict and x.shape[1:] != like.shape[1:]:
        raise ValueError(f"{what} must be [{', '.join(map(str, ('batch', *like.shape[1:])))}], got the shape {list(x.shape)}")
    if strict and not jnp.can_cast(x.dtype, like.dtype, "same_kind"):
        raise ValueError(f"{what} must be {like.dtype}, got {x.dtype}")
    return x.astype(like.dtype) if strict else x
