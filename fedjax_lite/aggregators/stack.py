"""Sums, norms and products over a stack of messages, blind to its empty slots: what they hold, NaN too, does not matter.

On a CPU a pass over the stack that writes it anew costs ten times one that only reads it, and XLA sums a stack's columns ten times
slower than its rows: hence rows one after another, and products in chunks of coordinates that stay in the cache.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedjax_lite import forms, tree
from fedjax_lite.base import Tree
from fedjax_lite.tree import wide

CHUNK = 5000  # coordinates
FEW = 16  # rows that are written out one by one

Present = Bool[Array, " clients"]


def sum_rows(fn: Callable[..., Tree], present: Present, *stacks: Tree) -> Tree:
    """The sum of `fn(*row)` over the rows present: in float32 where fn gives half precision, in int32 where shorter whole numbers."""

    def at_once(present, *stacks):
        terms = tree.zero_where_not(present, jax.vmap(fn)(*stacks))
        return jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=_sum_dtype(x)), terms)

    def by_rows(present, *stacks):
        one = jax.eval_shape(lambda row: jax.tree.map(jnp.asarray, fn(*row)), jax.tree.map(lambda x: x[0], stacks))

        def term(present, *row):
            terms = jax.tree.map(lambda x, like: jnp.asarray(x).astype(_sum_dtype(like)), fn(*row), one)
            return tree.zero_where_not(present, terms)

        if present.shape[0] <= FEW:
            terms = jax.vmap(term)(present, *stacks)
            return jax.tree.map(lambda x: sum((x[i] for i in range(1, len(x))), x[0]), terms)
        first = jax.tree.map(lambda like: jnp.zeros(like.shape, _sum_dtype(like)), one)
        return jax.lax.scan(lambda sums, row: (jax.tree.map(jnp.add, sums, term(*row)), None), first, (present, *stacks))[0]

    return forms.by_platform(present, *stacks, cpu=by_rows, accelerator=at_once)


def squared_norms(messages: Tree, present: Present) -> Float[Array, " clients"]:
    """Each message's squared Euclidean norm over all leaves, in float32 or wider; 0 for an empty slot."""
    return _total(jax.tree.map(lambda x: _squares(wide(x), present), messages))


def inner(messages: Tree, direction: Tree, present: Present) -> Float[Array, " clients"]:
    """<m_i, g> of every message; 0 for an empty slot."""
    return _total(jax.tree.map(lambda x, g: _products(x, g, present), messages, direction))


def mix(weights: Float[Array, " clients"], messages: Tree, present: Present) -> Tree:
    """sum_i w_i m_i."""

    def weighted(here, weight, message):
        return jax.tree.map(lambda x: weight.astype(x.dtype) * x, tree.zero_where_not(here, message))

    return sum_rows(weighted, present, present, weights, messages)


def average(chosen: Present, messages: Tree) -> Tree:
    """The mean of the messages chosen, which are present; 0 for none."""
    total, count = sum_rows(lambda message: (message, 1.0), chosen, messages)
    return jax.tree.map(lambda x: x / jnp.maximum(count, 1).astype(x.dtype), total)


def averages(chosen: Bool[Array, "rows clients"], messages: Tree, present: Present, lost: Bool[Array, " rows"]) -> Tree:
    """A stack of means, each of the messages that a row chooses of those present; NaN for the rows that are lost."""
    count = jnp.maximum(jnp.sum(chosen, axis=1), 1)

    def leaf(x):
        def product(chunk, first, total):
            rows = jnp.dot(chosen.astype(x.dtype), chunk, precision="highest") / count.astype(x.dtype)[:, None]
            return jax.lax.dynamic_update_slice(total, jnp.where(lost[:, None], jnp.nan, rows), (0, first))

        mixed = _over_chunks(product, x, present, jnp.zeros((len(chosen), x[0].size), x.dtype))
        return mixed.reshape(len(chosen), *x.shape[1:])

    return jax.tree.map(leaf, messages)


def columns(fn: Callable[[Array, Present], Array], messages: Tree, present: Present) -> Tree:
    """`fn([clients, coordinates], present) -> [coordinates]` of every leaf: a rule that acts on each coordinate alone."""

    def leaf(x):
        def some(chunk, first, total):
            return jax.lax.dynamic_update_slice(total, fn(chunk, present), (first,))

        size = 4 * CHUNK  # a rule of many passes pays for more of the cache
        return _over_chunks(some, x, present, jnp.zeros(x[0].size, x.dtype), size).reshape(x.shape[1:])

    return jax.tree.map(leaf, messages)


def gram(messages: Tree, present: Present, center: Tree | None = None) -> Float[Array, "clients clients"]:
    """G_ij = <m_i - c, m_j - c> over all leaves; without a center <m_i, m_j>."""

    def leaf(x, *c):
        def product(chunk, first, total):
            for some in c:
                off = chunk - jax.lax.dynamic_slice(some.reshape(-1), (first,), chunk.shape[1:])[None]
                chunk = tree.zero_where_not(present, off)
            return total + jnp.dot(chunk, chunk.T, precision="highest")

        return _over_chunks(product, x, present, jnp.zeros((len(x), len(x)), x.dtype))

    return _total(jax.tree.map(leaf, messages, *(() if center is None else (center,))))


def apart(messages: Tree, center: Tree) -> Tree:
    """m_i - c of every message."""
    return jax.tree.map(lambda x, c: x - c[None], messages, center)


def _sum_dtype(x: Any) -> Any:
    """That of x, but float32 for half precision, and int32 for truth values and short whole numbers: parts are added in it, too."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.promote_types(x.dtype, jnp.float32)
    return jnp.promote_types(x.dtype, jnp.int32) if x.dtype.itemsize < 4 else x.dtype


def _total(leaves: Tree) -> Array:
    return jnp.sum(jnp.stack(jax.tree.leaves(leaves)), axis=0)


def _rows(x: Array) -> Array:
    """The sum of each row."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


# Empty slots are left out of the result, which costs no pass over the stack, and in the derivative, which would else be NaN for them.


@jax.custom_jvp
def _squares(x: Array, present: Present) -> Array:
    return jnp.where(present, _rows(x * x), 0)


@_squares.defjvp
def _squares_jvp(primals, tangents):
    x, present = primals
    return _squares(x, present), _rows(2 * tree.zero_where_not(present, x) * tangents[0])


@jax.custom_jvp
def _products(x: Array, g: Array, present: Present) -> Array:
    return jnp.where(present, _rows(x * g[None]), 0)


@_products.defjvp
def _products_jvp(primals, tangents):
    x, g, present = primals
    slope = _rows(tree.zero_where_not(present, x) * tangents[1][None])
    return _products(x, g, present), slope + jnp.where(present, _rows(tangents[0] * g[None]), 0)


def _over_chunks(step: Callable[[Array, Any, Array], Array], x: Array, present: Present, total: Array, size: int = CHUNK) -> Array:
    """`total = step(chunk, first coordinate, total)` for the coordinates of a leaf `[clients, ...]`, chunk after chunk."""

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
    if number <= 1:  # the same everywhere, and compiled once
        return at_once(x, total)
    return forms.by_platform(x, total, cpu=in_chunks, accelerator=at_once)
