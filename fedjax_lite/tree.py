"""Stacks: pytrees whose leaves share their first axis."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.base import Tree


def paths_of(params: Tree) -> list[str]:
    """Return the paths of a model's leaves, in order.

    Raises:
        ValueError: if two have the same path.

    >>> paths_of({"Dense_0": {"bias": 0.0, "kernel": 0.0}}), paths_of(0.0)
    (['Dense_0/bias', 'Dense_0/kernel'], ['params'])
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "params" for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"params: two leaves are called {twice[0]!r}: rename a key that has a slash")
    return names


def nested(leaves: Mapping[tuple[str, ...], Any]) -> Tree:
    """Build nested dicts from leaves by path; a leaf with the empty path is the tree itself.

    >>> nested({("layers", "0", "weight"): 1, ("bias",): 2})
    {'layers': {'0': {'weight': 1}}, 'bias': 2}
    """
    if () in leaves:
        return leaves[()]
    heads = dict.fromkeys(keys[0] for keys in leaves)
    return {head: nested({keys[1:]: x for keys, x in leaves.items() if keys[0] == head}) for head in heads}


def take(stack: Tree, index: Int[Array, "..."]) -> Tree:
    """Return rows of a stack; an index past the end gives the last row."""
    return jax.tree.map(lambda x: jnp.take(x, index, axis=0, mode="clip"), stack)


def some(stack: Tree, ids: Int[Array, "..."] | None) -> Tree:
    """Return rows of a stack, or all of it for None."""
    return stack if ids is None else take(stack, ids)


def put(stack: Tree, index: Int[Array, " n"], rows: Tree) -> Tree:
    """Replace the rows `index` of a stack; a row with an index past the end is dropped."""
    return jax.tree.map(lambda x, row: x.at[index].set(row, mode="drop"), stack, rows)


def where(mask: Bool[Array, "..."], chosen: Tree, other: Tree) -> Tree:
    """Select `chosen` where `mask` is True, else `other`; the mask's axes are the leading axes of every leaf."""

    def leaf(x, y):
        if x is y:  # so that under vmap a leaf that all runs share stays shared
            return x
        return jax.lax.select(jnp.broadcast_to(_trailing(mask, x.ndim), x.shape), x, y)

    return jax.tree.map(leaf, chosen, other)


def zero_where_not(mask: Bool[Array, "..."], stack: Tree) -> Tree:
    """Set the rows of a stack where `mask` is False to 0, even rows that hold NaN."""
    return where(mask, stack, jax.tree.map(jnp.zeros_like, stack))


def if_finite(tree: Tree, other: Tree) -> Tree:
    """Return a tree whose squared norm is finite, else `other`."""
    return where(jnp.isfinite(squared_norm(tree)), tree, other)


def squared_norm(tree: Tree) -> Float[Array, ""]:
    """Return the sum of squares over all leaves, in float32 or wider; not finite where the sum overflows."""
    return sum((jnp.sum(jnp.square(wide(x))) for x in jax.tree.leaves(tree)), start=jnp.zeros((), jnp.float32))


def wide(x: Array) -> Array:
    """Cast an array to at least float32, in which half precision and whole numbers are computed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def cast_like(tree: Tree, like: Tree) -> Tree:
    """Cast a tree to the dtypes of `like`, a tree of the same structure."""
    return jax.tree.map(lambda x, y: x if x is y else jnp.asarray(x).astype(y.dtype), tree, like)


def is_key(x: Any) -> bool:
    """Return whether an array, or its shape, holds random keys."""
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def words(tree: Tree) -> Tree:
    """Replace random keys in a tree by their uint32 words."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def keys_again(row: Any, like: Any) -> Any:
    """Invert `words` for one leaf; `like` has the kind of key."""
    return jax.random.wrap_key_data(row, impl=jax.random.key_impl(like)) if is_key(like) else row


def stack_of(shapes: Tree, rows: int) -> Tree:
    """Make a stack of `rows` rows of zeros; random keys, which have no zero, become words."""

    def leaf(s):
        return jnp.zeros((rows, *s.shape, s.dtype.itemsize // 4), jnp.uint32) if is_key(s) else jnp.zeros((rows, *s.shape), s.dtype)

    return jax.tree.map(leaf, shapes)


def zeros(shapes: Tree) -> Tree:
    """Make zeros for a tree of `jax.ShapeDtypeStruct`."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _trailing(x: Array, ndim: int) -> Array:
    """Append axes of length 1 to `x`, up to `ndim` axes."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))
