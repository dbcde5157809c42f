"""Order statistics of each coordinate over the clients, by bisection of bits, many times faster on a CPU than sorting."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Present = Bool[Array, " clients"]
Count = Int[Array, ""]
Column = Float[Array, " coordinates"]
Stack = Float[Array, "clients coordinates"]
WRITTEN_OUT = 128  # most rows of a loop that is unrolled whole


def statistic(x: Stack, weights: Float[Array, " clients"] | Int[Array, " clients"], bound: Count) -> Column:
    """Find each column's smallest value v such that the weights of values <= v sum to at least `bound`.

    With weights 1 and `bound` k+1: the value of rank k, counted from 0. NaN counts as more than infinity. No gradient.
    """
    keys = _ordered(jax.lax.stop_gradient(x))
    bits = keys.dtype.itemsize * 8

    def count(state, row):
        trial, below = state
        return trial, below + jnp.where(row[0] < trial, row[1], 0)

    def bit(i, key):
        trial = key | (jnp.ones((), keys.dtype) << (bits - 1 - i).astype(keys.dtype))
        # Unrolled rows are three times faster than a loop, and a loop three times faster than a sum over columns.
        below = _over_rows(count, (trial, jnp.zeros(key.shape, weights.dtype)), (keys, weights), len(x) if len(x) <= WRITTEN_OUT else 1)[1]
        return jnp.where(below < bound, trial, key)

    return _unordered(jax.lax.fori_loop(0, bits, bit, jnp.zeros(x.shape[1:], keys.dtype)), x.dtype)


def middle(x: Stack, present: Present, n: Count) -> tuple[Column, Column]:
    """Return each column's values of rank (n-1)//2 and n//2 among the clients present: the two in the middle."""
    low = statistic(x, present.astype(jnp.float32), (n - 1) // 2 + 1)

    def beyond(sums, row):
        value, here = row
        at_most, above = sums
        return at_most + (here & (value <= low)), jnp.fmin(above, jnp.where(here & (value > low), value, jnp.nan))

    start = jnp.zeros(low.shape, jnp.int32), jnp.full(low.shape, jnp.nan, low.dtype)  # stays NaN if only NaN is above `low`
    at_most, above = _over_rows(beyond, start, (jax.lax.stop_gradient(x), present))
    return low, jnp.where(at_most > n // 2, low, above)


def mean_between(x: Stack, present: Present, low: Column, high: Column, below: Count, kept: Count) -> Column:
    """Average `kept` values from `low` to `high`, after dropping `below` values up to `low`; of equal values the first slots count."""

    def count(sums, row):
        value, here = row
        at_most, inside = sums
        return at_most + (here & (value <= low)), inside + (here & (low < value) & (value < high))

    zeros = 2 * (jnp.zeros(low.shape, jnp.int32),)
    at_most, inside = _over_rows(count, zeros, (jax.lax.stop_gradient(x), present))
    of_low = jnp.where(low == high, kept, at_most - below)
    of_high = kept - inside - of_low

    def add(sums, row):
        value, here = row
        total, lows, highs = sums
        is_low, is_high = here & (value == low), here & (value == high)
        chosen = (here & (low < value) & (value < high)) | (is_low & (lows < of_low)) | (is_high & (highs < of_high))
        return total + jnp.where(chosen, value, 0), lows + is_low, highs + is_high

    total = _over_rows(add, (jnp.zeros(low.shape, x.dtype), *zeros), (x, present))[0]
    return jnp.where(jnp.isnan(low) | jnp.isnan(high), jnp.nan, total / jnp.maximum(kept, 1).astype(x.dtype))


def mean_around(x: Stack, present: Present, center: Column, kept: Count) -> Column:
    """Average the `kept` values of each column closest to `center`; of equally close values the first slots."""
    far = jnp.abs(jax.lax.stop_gradient(x) - center[None])
    most = statistic(far, present.astype(jnp.float32), kept)

    def count(sums, row):
        far, here = row
        return sums + (here & (far < most))

    closer = _over_rows(count, jnp.zeros(most.shape, jnp.int32), (far, present))

    def add(sums, row):
        value, far, here = row
        total, ties = sums
        tie = here & (far == most)
        chosen = (here & (far < most)) | (tie & (ties < kept - closer))
        return total + jnp.where(chosen, value, 0), ties + tie

    start = jnp.zeros(most.shape, x.dtype), jnp.zeros(most.shape, jnp.int32)
    mean = _over_rows(add, start, (x, far, present))[0] / jnp.maximum(kept, 1).astype(x.dtype)
    return jnp.where(jnp.isnan(most), jnp.nan, mean)


def _over_rows(step: Callable, start, rows, unroll: int = 1):
    """Fold `step(state, row)` over the rows of stacks, from `start`."""
    return jax.lax.scan(lambda state, row: (step(state, row), None), start, rows, unroll=unroll)[0]


def _ordered(x: Array) -> Array:
    """Map floats to unsigned integers in the same order; NaN comes last, also with a sign bit, as from 0 / 0."""
    x = jnp.where(jnp.isnan(x), jnp.nan, x)
    signed, unsigned = (jnp.int32, jnp.uint32) if x.dtype == jnp.float32 else (jnp.int64, jnp.uint64)
    bits = jax.lax.bitcast_convert_type(x, signed)
    top = jnp.iinfo(signed).max
    return jax.lax.bitcast_convert_type(jnp.where(bits < 0, bits ^ top, bits), unsigned) ^ unsigned(top + 1)


def _unordered(keys: Array, dtype) -> Array:
    """Invert `_ordered`, to floats of `dtype`."""
    signed = jnp.int32 if dtype == jnp.float32 else jnp.int64
    top = jnp.iinfo(signed).max
    bits = jax.lax.bitcast_convert_type(keys ^ keys.dtype.type(top + 1), signed)
    return jax.lax.bitcast_convert_type(jnp.where(bits < 0, bits ^ top, bits), dtype)
