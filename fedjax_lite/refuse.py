"""Numbers that are refused when a part is built, if they are known then: a tracer is not."""

import jax
import numpy as np

from fedjax_lite.base import Number


def whole(name: str, argument: str, value: Number, least: int = 0) -> None:
    """Refuse a count that is known while tracing and no whole number of at least `least`.

    Raises:
        ValueError: if it is so.
    """
    if isinstance(value, jax.Array):
        return
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not least <= value < float("inf") or value != int(value):
        raise ValueError(f"{name}: {argument} must be a whole number of at least {least}, got {value!r}")


def positive(name: str, argument: str, value: Number, or_zero: bool = False) -> None:
    """Refuse a number that is known while tracing and not positive (or 0, where that is allowed).

    Raises:
        ValueError: if it is so.
    """
    if isinstance(value, jax.Array):
        return
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not (0 < value < float("inf") or (or_zero and value == 0)):
        raise ValueError(f"{name}: {argument} must be {'finite and not negative' if or_zero else 'positive and finite'}, got {value!r}")


def finite(name: str, argument: str, value: Number) -> None:
    """Refuse a number that is known while tracing and not finite.

    Raises:
        ValueError: if it is so.
    """
    if not isinstance(value, jax.Array) and not -float("inf") < value < float("inf"):
        raise ValueError(f"{name}: {argument} must be finite, got {value!r}")
