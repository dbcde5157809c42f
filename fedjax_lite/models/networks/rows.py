"""Dense layers over sequences as one product of matrices."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike


def by_rows(x: ArrayLike, kernel: ArrayLike, dimension_numbers: Any, **more: Any) -> jax.Array:
    """Multiply `x` `[..., in]` by `kernel` `[in, out]`, as the `dot_general` of a `flax.linen.Dense`.

    A product over two leading axes has a gradient of the kernel that XLA computes on a CPU at half the speed or less of one over rows.

    >>> by_rows(jnp.ones((2, 3, 4)), jnp.ones((4, 5)), None).shape
    (2, 3, 5)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    rows = lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **more)
    return rows.reshape(*x.shape[:-1], kernel.shape[-1])
