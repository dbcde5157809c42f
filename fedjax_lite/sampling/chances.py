"""Relative probabilities of clients: all alike, by their examples, or given; their shares, and draws with replacement by them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedjax_lite.base import Key

__all__ = ["checked", "drawn", "shares"]

Chances = str | Any  # "uniform", "examples", or numbers [population]
BITS = 31  # of a draw by given numbers


def checked(name: str, argument: str, given: Chances, or_zero: bool = True) -> Chances:
    """Return "uniform", "examples", or given numbers as float64 shares `[population]`; refuse others.

    Raises:
        ValueError: for another word or shape, for numbers that are negative or not finite or all 0, and for a 0 unless `or_zero`.
    """
    if isinstance(given, str):
        if given not in ("uniform", "examples"):
            raise ValueError(f'{name}: {argument} must be "uniform", "examples" or a number for each client, got {given!r}')
        return given
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError, jax.errors.TracerArrayConversionError):
        found = np.zeros(())
    if found.ndim != 1 or not len(found):
        raise ValueError(f'{name}: {argument} must be "uniform", "examples" or a number for each client, got {str(given)[:80]}')
    wrong = ~np.isfinite(found) | (found < 0) | (False if or_zero else found == 0)
    if wrong.any() or not found.any():
        k = wrong.argmax()
        least = "finite and not negative, and one positive" if or_zero else "positive and finite"
        raise ValueError(f"{name}: {argument} must be {least}, got {found[k]:g} for client {k}")
    return found / found.sum()


def shares(name: str, argument: str, given: Chances, sizes: Any, library: Any = jnp) -> Any:
    """Return each client's share `[population]`, which sum to 1, by JAX or by NumPy."""
    population = sizes.shape[0]
    if isinstance(given, str):
        if given == "uniform":
            return library.full(population, 1 / population)
        return sizes / library.maximum(library.sum(sizes), 1)
    if len(given) != population:
        raise ValueError(f"{name}: {argument} has {len(given)} numbers for {population} clients: give one for each")
    return library.asarray(given)


def drawn(name: str, argument: str, given: Chances, key: Key, sizes: Array, number: int) -> Int[Array, " number"]:
    """Draw clients with replacement, by their shares."""
    if isinstance(given, str) and given == "uniform":
        return jax.random.randint(key, (number,), 0, sizes.shape[0], jnp.int32)
    if isinstance(given, str):  # whole numbers, so that the draw is exact
        ends = jnp.cumsum(sizes, dtype=jnp.int32)
        return _below(ends, jax.random.randint(key, (number,), 0, jnp.maximum(ends[-1], 1), jnp.int32))
    given = _ends(shares(name, argument, given, np.zeros(sizes.shape), np))
    return _below(jnp.asarray(given), (jax.random.bits(key, (number,), jnp.uint32) >> 1).astype(jnp.int32))


def _ends(given: Float[np.ndarray, " population"]) -> Int[np.ndarray, " population"]:
    """Return the ends of clients' parts of the numbers below 2^31; the sum in float64, since one in float32 is off by percents."""
    ends = np.rint(np.cumsum(given) * 2.0**BITS).astype(np.int64)
    last = np.flatnonzero(given)[-1]
    return np.where(np.arange(len(given)) >= last, 2**BITS - 1, np.minimum(ends, 2**BITS - 1)).astype(np.int32)


def _below(ends: Int[Array, " population"], number: Int[Array, " n"]) -> Int[Array, " n"]:
    """Return the client in whose part a number lies; the last number is in the last part."""
    return jnp.searchsorted(ends, jnp.minimum(number, ends[-1] - 1), side="right").astype(jnp.int32)
