"""Refuse bad arguments when a part is built. Most functions here let a tracer pass, since its value is not known then."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Number, Tree


def is_number(value: Any) -> bool:
    """Return whether `value` is a plain number of Python or NumPy: no tracer, no text, no bool."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def whole(name: str, argument: str, value: Number, least: int = 0) -> None:
    """Refuse a count that is no whole number of at least `least`; an array of jax passes unchecked.

    Raises:
        ValueError: naming the argument and the value.
    """
    if isinstance(value, jax.Array):
        return
    if not is_number(value) or not least <= value < float("inf") or value != int(value):
        raise ValueError(f"{name}: {argument} must be a whole number of at least {least}, got {value!r}")


def is_count(value: Any, least: int = 0) -> bool:
    """Return whether `value` is an int of at least `least`, Python's, NumPy's or JAX's: no float, text or tracer.

    >>> is_count(3), is_count(np.int64(3)), is_count(3.0), is_count(True)
    (True, True, False, False)
    """
    try:
        return not isinstance(value, bool | np.bool) and operator.index(value) >= least
    except TypeError:
        return False


def integer(name: str, argument: str, value: Any, least: int = 0) -> None:
    """Refuse a count that is no int of at least `least`; a float or a tracer is refused, since the count sets a shape.

    Raises:
        ValueError: naming the argument and the value.
    """
    if not is_count(value, least):
        raise ValueError(f"{name}: {argument} must be an int of at least {least}, got {value!r}")


def delta(name: str, value: Any, or_zero: bool = False) -> None:
    """Refuse a delta, the probability with which a guarantee may fail, outside (0, 1); 0 is allowed if `or_zero`.

    Raises:
        ValueError: naming the value.
    """
    if not is_number(value) or not (0 < value < 1 or (or_zero and value == 0)):
        between = "0 or between 0 and 1" if or_zero else "between 0 and 1"
        raise ValueError(f"{name}: delta must be {between}, got {value!r}: usually below one over the population")


def positive(name: str, argument: str, value: Number, or_zero: bool = False) -> None:
    """Refuse a number that is not positive and finite; 0 is allowed if `or_zero`, and an array of jax passes unchecked.

    Raises:
        ValueError: naming the argument and the value.
    """
    if isinstance(value, jax.Array):
        return
    if not is_number(value) or not (0 < value < float("inf") or (or_zero and value == 0)):
        raise ValueError(f"{name}: {argument} must be {'finite and not negative' if or_zero else 'positive and finite'}, got {value!r}")


def finite(name: str, argument: str, value: Number) -> None:
    """Refuse a number that is not finite; an array of jax passes unchecked.

    Raises:
        ValueError: naming the argument and the value.
    """
    if isinstance(value, jax.Array):
        return
    if not is_number(value) or not -float("inf") < value < float("inf"):
        raise ValueError(f"{name}: {argument} must be finite, got {value!r}")


def a_count(name: str, argument: str, value: Any, least: int = 1) -> int:
    """Return a whole number of Python, NumPy or JAX as an int.

    Raises:
        ValueError: for another value, a tracer, or a number below `least`.
    """
    if not is_count(value, least):
        raise ValueError(f"{name}: {argument} must be a whole number of at least {least}, got {value!r}")
    return operator.index(value)


def a_share(name: str, argument: str, value: Any, bounds: str) -> Number:
    """Return a number of Python, NumPy or JAX within `bounds`, for instance "(0, 1]", as Python's number; a tracer as it is.

    Raises:
        ValueError: for a number outside the bounds, and for a value that is no number.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    number = plain(value)
    inside = is_number(number) and 0 <= number <= 1 and (number > 0 or bounds[0] == "[") and (number < 1 or bounds[-1] == "]")
    if not inside:
        raise ValueError(f"{name}: {argument} must be in {bounds}, got {value!r}")
    return number


def plain(value: Any) -> Any:
    """Convert a number of NumPy, or of JAX where its value is known, to Python's; return another value as it is.

    >>> plain(np.int64(3)), plain("3"), plain(None)
    (3, '3', None)
    """
    known = isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer)
    return value.item() if known and np.ndim(value) == 0 else value


def short(text: Any, most: int = 200) -> str:
    """Return a value's text for an error, cut to `most` characters.

    >>> short("a" * 99, most=5)
    'aa...'
    """
    text = str(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(error: BaseException) -> str:
    """Return an error's type and first line, in at most 200 characters.

    >>> one_line(TypeError("no number\\nat all"))
    'TypeError: no number'
    """
    return short(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def complex_leaves(name: str, tree: Tree) -> None:
    """Refuse complex leaves: norms, noise, gradients and rules are for real numbers.

    Raises:
        ValueError: naming the first complex leaf.
    """
    _all_leaves(name, tree, jnp.complexfloating, False, "give its real and imaginary parts as two leaves")


def inexact_leaves(name: str, tree: Tree) -> None:
    """Refuse leaves that are not floating-point numbers, since these have no gradient.

    Raises:
        ValueError: naming the first other leaf.
    """
    _all_leaves(name, tree, jnp.floating, True, "only floating-point leaves can be trained: make it one, or keep it out of the parameters")


def _all_leaves(name: str, tree: Tree, kind: Any, wanted: bool, remedy: str) -> None:
    """Refuse the first leaf whose dtype is of a `kind` though not `wanted`, or is not though wanted."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, kind) != wanted:
            which = f"leaf {jax.tree_util.keystr(path)}" if path else "the array"
            raise ValueError(f"{name}: {which} holds {leaf.dtype}: {remedy}")
