"""Metrics that an uplink reports of its client beside the message, out of reach of attacks and aggregators."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Int

from fedjax_lite.base import Mean, Tree


class ClientMetrics(NamedTuple):
    """Metrics of one client in its uplink's state: counts, since no float learnt from private data may stay there."""

    shares: dict[str, tuple[Int[Array, "*clients"], Int[Array, "*clients"]]]  # metric -> count, and the total that the count is a share of


def metrics_of(state: Tree) -> dict[str, Mean]:
    """Return the metrics in an uplink's `state` after a message was sent: shares, whose mean counts all clients alike.

    >>> import jax.numpy as jnp
    >>> metrics_of(({}, ClientMetrics({"right": (jnp.int32(1), jnp.int32(4))})))["right"].value().item()
    0.25
    """
    nodes = [x for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, ClientMetrics)) if isinstance(x, ClientMetrics)]
    shares = {name: part / whole for node in nodes for name, (part, whole) in node.shares.items()}
    return {name: Mean(share, share * 0 + 1) for name, share in shares.items()}
