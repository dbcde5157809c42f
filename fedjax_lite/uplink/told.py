"""What an uplink tells of its client beside the message: metrics, which no attack or aggregator touches."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Int

from fedjax_lite.base import Mean, Tree


class Told(NamedTuple):
    """Shares of one client, in its uplink's state; as counts, since numbers learnt from private data must not stay there."""

    shares: dict[str, tuple[Int[Array, "*clients"], Int[Array, "*clients"]]]  # metric -> how many, of how many


def told(state: Tree) -> dict[str, Mean]:
    """The metrics in an uplink's state after a message was sent, each the mean over clients.

    >>> import jax.numpy as jnp
    >>> told(({}, Told({"right": (jnp.int32(1), jnp.int32(4))})))["right"].value().item()
    0.25
    """
    nodes = [x for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Told)) if isinstance(x, Told)]
    shares = {name: part / whole for node in nodes for name, (part, whole) in node.shares.items()}
    return {name: Mean(share, share * 0 + 1) for name, share in shares.items()}
