"""Stacks: pytrees whose leaves share their first axis."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedjax_lite.base import Tree


def take(stack: Tree, index: Int[Array, "..."]) -> Tree:
    """Rows of a stack; an index past the end gives the last row."""
    return jax.tree.map(lambda x: jnp.take(x, index, axis=0, mode="clip"), stack)


def put(stack: Tree, index: Int[Array, " n"], rows: Tree) -> Tree:
    """A stack with some rows replaced; an index past the end is dropped."""
    return jax.tree.map(lambda x, row: x.at[index].set(row, mode="drop"), stack, rows)


def where(mask: Bool[Array, "..."], chosen: Tree, other: Tree) -> Tree:
    """Leaf by leaf `chosen` where the mask holds; the mask's axes are the leading ones of every leaf."""

    def leaf(x, y):
        return jax.lax.select(jnp.broadcast_to(_trailing(mask, x.ndim), x.shape), x, y)

    return jax.tree.map(leaf, chosen, other)


def zero_where_not(mask: Bool[Array, "..."], stack: Tree) -> Tree:
    """A stack with the rows outside the mask set to 0, even where they hold NaN."""
    return where(mask, stack, jax.tree.map(jnp.zeros_like, stack))


def cast_like(tree: Tree, like: Tree) -> Tree:
    """A tree with the dtypes of another of the same structure."""
    return jax.tree.map(lambda x, y: jnp.asarray(x).astype(y.dtype), tree, like)


def zeros(shapes: Tree) -> Tree:
    """Zeros for a tree of `jax.ShapeDtypeStruct`."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _trailing(x: Array, ndim: int) -> Array:
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))
