"""Accounting is done on the host, in Python's numbers: NumPy's and jax's are taken for them."""

from typing import Any

import jax
import numpy as np


def plain(value: Any) -> Any:
    """A number of NumPy's, or of jax's where it is known, as one of Python's; anything else as it is.

    >>> plain(np.int64(3)), plain("3"), plain(None)
    (3, '3', None)
    """
    known = isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer)
    return value.item() if known and np.ndim(value) == 0 else value
