"""Sums, norms and products over a stack of messages; values in empty slots, even NaN, do not matter.

On a CPU a pass that writes a new stack costs ten times a pass that only reads, and XLA sums columns ten times slower than rows.
Hence sums go row after row, and products in chunks of coordinates that stay in the cache.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedjax_lite import forms, tree
from fedjax_lite.base import Tree
from fedjax_lite.tree import wide

CHUNK = 5000  # coordinates of a leaf that a CPU takes at a time
FEW = 16  # most rows of a sum that is unrolled

Present = Bool[Array, " clients"]  # False for an empty slot


def sum_rows(fn: Callable[..., Tree], present: Present, *stacks: Tree) -> Tree:
    """Sum `fn(*row)` over the rows present: half precision in float32, truth values and short whole numbers in int32."""

    def at_once(present, *stacks):
        terms = tree.zero_where_not(present, jax.vmap(fn)(*stacks))
        return jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=_sum_dtype(x)), terms)

    def by_rows(present, *stacks):
        shapes = jax.eval_shape(lambda row: jax.tree.map(jnp.asarray, fn(*row)), jax.tree.map(lambda x: x[0], stacks))

        def term(present, *row):
            terms = jax.tree.map(lambda x, like: jnp.asarray(x).astype(_sum_dtype(like)), fn(*row), shapes)
            return tree.zero_where_not(present, terms)

        if present.shape[0] <= FEW:
            terms = jax.vmap(term)(present, *stacks)
            return jax.tree.map(lambda x: sum((x[i] for i in range(1, len(x))), x[0]), terms)
        first = jax.tree.map(lambda like: jnp.zeros(like.shape, _sum_dtype(like)), shapes)
        return jax.lax.scan(lambda sums, row: (jax.tree.map(jnp.add, sums, term(*row)), None), first, (present, *stacks))[0]

    return forms.by_platform(present, *stacks, cpu=by_rows, accelerator=at_once)


def squared_norms(messages: Tree, present: Present) -> Float[Array, " clients"]:
    """Each message's squared Euclidean norm over all leaves, in float32 or wider; 0 for an empty slot."""
    if not jax.tree.leaves(messages):  # of a model that stays with its clients
        return jnp.zeros(present.shape, jnp.float32)
    return _total(jax.tree.map(lambda x: _squares(wide(x), present), messages))


def inner(messages: Tree, direction: Tree, present: Present) -> Float[Array, " clients"]:
    """Return <m_i, g> of each message with `direction`, g; 0 for an empty slot."""
    return _total(jax.tree.map(lambda x, g: _products(x, g, present), messages, direction))


def mix(weights: Float[Array, " clients"], messages: Tree, present: Present) -> Tree:
    """Return sum_i w_i m_i over the messages present."""

    def weighted(here, weight, message):
        return jax.tree.map(lambda x: weight.astype(x.dtype) * x, tree.zero_where_not(here, message))

    return sum_rows(weighted, present, present, weights, messages)


def average(chosen: Present, messages: Tree) -> Tree:
    """Average the messages of the `chosen` slots, all present; 0 if no slot is chosen."""
    total, count = sum_rows(lambda message: (message, 1.0), chosen, messages)
    return jax.tree.map(lambda x: x / jnp.maximum(count, 1).astype(x.dtype), total)


def averages(chosen: Bool[Array, "rows clients"], messages: Tree, present: Present, lost: Bool[Array, " rows"]) -> Tree:
    """Return a stack of means `[rows, ...]`: row i averages the present messages that `chosen[i]` marks; NaN where `lost[i]`."""
    count = jnp.maximum(jnp.sum(chosen, axis=1), 1)

    def leaf(x):
        def product(chunk, first, total):
            rows = jnp.dot(chosen.astype(x.dtype), chunk, precision="highest") / count.astype(x.dtype)[:, None]
            return jax.lax.dynamic_update_slice(total, jnp.where(lost[:, None], jnp.nan, rows), (0, first))

        mixed = _over_chunks(product, x, present, jnp.zeros((len(chosen), x[0].size), x.dtype))
        return mixed.reshape(len(chosen), *x.shape[1:])

    return jax.tree.map(leaf, messages)


def columns(fn: Callable[[Array, Present], Array], messages: Tree, present: Present) -> Tree:
    """Apply a rule that acts on each coordinate alone to every leaf: `fn([clients, coordinates], present) -> [coordinates]`."""

    def leaf(x):
        def applied(chunk, first, total):
            return jax.lax.dynamic_update_slice(total, fn(chunk, present), (first,))

        size = 4 * CHUNK  # `fn` passes over a chunk many times, which pays for longer chunks
        return _over_chunks(applied, x, present, jnp.zeros(x[0].size, x.dtype), size).reshape(x.shape[1:])

    return jax.tree.map(leaf, messages)


def gram(messages: Tree, present: Present, center: Tree | None = None) -> Float[Array, "clients clients"]:
    """Return G_ij = <m_i - c, m_j - c> over all leaves, c the `center`; without a center <m_i, m_j>."""

    def leaf(x, *c):
        def product(chunk, first, total):
            for center_leaf in c:  # none without a center
                off = chunk - jax.lax.dynamic_slice(center_leaf.reshape(-1), (first,), chunk.shape[1:])[None]
                chunk = tree.zero_where_not(present, off)
            return total + jnp.dot(chunk, chunk.T, precision="highest")

        return _over_chunks(product, x, present, jnp.zeros((len(x), len(x)), x.dtype))

    return _total(jax.tree.map(leaf, messages, *(() if center is None else (center,))))


def difference(messages: Tree, center: Tree) -> Tree:
    """Return m_i - c of each message, c the `center`."""
    return jax.tree.map(lambda x, c: x - c[None], messages, center)


def _sum_dtype(x: Any) -> Any:
    """Return the dtype for sums of `x` and of parts: at least float32, or int32 for truth values and short whole numbers."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.promote_types(x.dtype, jnp.float32)
    return jnp.promote_types(x.dtype, jnp.int32) if x.dtype.itemsize < 4 else x.dtype


def _total(leaves: Tree) -> Array:
    """Add the leaves, arrays of equal shape."""
    return jnp.sum(jnp.stack(jax.tree.leaves(leaves)), axis=0)


def _rows(x: Array) -> Array:
    """Sum each row of `x`, `[clients]`."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


# Empty slots are masked in the result, without a pass over the stack, and in the derivative, where NaN would spread.


@jax.custom_jvp
def _squares(x: Array, present: Present) -> Array:
    """Return each row's sum of squares; 0 for an empty slot."""
    return jnp.where(present, _rows(x * x), 0)


@_squares.defjvp
def _squares_jvp(primals, tangents):
    x, present = primals
    return _squares(x, present), _rows(2 * tree.zero_where_not(present, x) * tangents[0])


@jax.custom_jvp
def _products(x: Array, g: Array, present: Present) -> Array:
    """Return <x_i, g> of each row; 0 for an empty slot."""
    return jnp.where(present, _rows(x * g[None]), 0)


@_products.defjvp
def _products_jvp(primals, tangents):
    x, g, present = primals
    slope = _rows(tree.zero_where_not(present, x) * tangents[1][None])
    return _products(x, g, present), slope + jnp.where(present, _rows(tangents[0] * g[None]), 0)


def _over_chunks(step: Callable[[Array, Any, Array], Array], x: Array, present: Present, total: Array, size: int = CHUNK) -> Array:
    """Fold `step(chunk, first, total)` over a leaf `[clients, ...]` in chunks of `size` coordinates, the chunk's first number `first`."""

    def chunk(x, first, length):
        rows = jax.lax.dynamic_slice(x, (0, first), (len(x), length))
        return tree.zero_where_not(present, rows)

    def in_chunks(x, total):
        total = jax.lax.fori_loop(0, number, lambda i, total: step(chunk(x, i * size, size), i * size, total), total)
        return step(chunk(x, number * size, rest), number * size, total) if rest else total

    def at_once(x, total):
        return step(chunk(x, 0, x.shape[1]), 0, total)

    x = x.reshape(len(x), -1)
    number, rest = divmod(x.shape[1], size)
    if number <= 1:  # both forms do the same: compile a single form
        return at_once(x, total)
    return forms.by_platform(x, total, cpu=in_chunks, accelerator=at_once)
