"""A random permutation as a function: position -> index, no table, no sort, any traced n."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from fedjax_lite import forms
from fedjax_lite.base import Key

ROUNDS = 24  # each round moves about half of the positions; 24 rounds leave no measurable trace of the order before


def permute(key: Key, n: Int[Array, ""] | int, position: Int[Array, "..."]) -> Int[Array, "..."]:
    r"""Return the index to which a random permutation of 0..n-1 sends each position (swap-or-not shuffle).

    For each of 24 rounds i with a random offset K_i and a random bit function B_i:
    x' = (K_i - x) mod n;  x <- x' if B_i(max(x, x')) else x. Since x and x' are each other's partner, every
    round is a bijection, and so is the whole.

    Args:
        key: names the permutation; used up.
        n: its length, 1 <= n < 2^31; may be traced.
        position: int32 in [0, n), any shape.

    Returns:
        int32 in [0, n), the shape of `position`. Positions outside [0, n) give a meaningless index.

    >>> sorted(permute(jax.random.key(0), 5, jnp.arange(5)).tolist())
    [0, 1, 2, 3, 4]

    Source: Hoang, Morris, Rogaway 2012, "An enciphering scheme based on a card shuffle", figure 1.
    """
    n = jnp.asarray(n).astype(jnp.uint32)
    seeds = jax.random.bits(key, (2,), jnp.uint32)
    counter = jnp.arange(ROUNDS, dtype=jnp.uint32) * np.uint32(0x9E3779B9)  # 2^32 / golden ratio
    offsets = mixed(counter + seeds[0]) % jnp.maximum(n, 1)
    salts = mixed(counter + seeds[1])

    def swap_or_not(x, drawn):
        offset, salt = drawn
        partner = jnp.where(x <= offset, offset - x, offset + (n - x))
        swap = mixed(jnp.maximum(x, partner) ^ salt) >> 31
        return jnp.where(swap == 1, partner, x), None

    # On CPU the loop is as fast and compiles sooner; elsewhere 24 small kernels would cost more than one fused one.
    unroll = 1 if forms.cpu() else ROUNDS
    x, _ = jax.lax.scan(swap_or_not, position.astype(jnp.uint32), (offsets, salts), unroll=unroll)
    return x.astype(jnp.int32)


def mixed(x: UInt32[Array, "..."] | UInt32[np.ndarray, "..."]) -> Any:
    """Map 32-bit words one to one; flipping an input bit flips each output bit half of the time."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)  # multipliers: Wellons 2018, lowest bias found
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
