"""Sizes of a run's models and the bytes sent in its rounds, as numbers for the summary."""

from collections.abc import Sequence
from typing import Any

import jax

from fedjax_lite.base import Tree
from fedjax_lite.ledger import dense_bits

__all__ = ["traffic"]


def traffic(records: Sequence[dict[str, Any]], start: Tree, params: Tree) -> dict[str, Any]:
    """Count parameters and sum bytes sent over all rounds, as numbers for a run's summary.

    Args:
        records: one a round, with "clients", "uplink_bits" and "downlink_bits".
        start: the initial parameters of the clients' model; of families, a tuple with the parameters of each family's model.
        params: the global model.

    Returns:
        "client_parameters" (of families a list), "global_parameters", "uplink_bytes", "downlink_bytes" and "uplink_of_model": the mean
        bits that a client sent in a round over the bits of its float32 model. With families, the mean of their models is meant. Numbers
        of bytes are left out where no record has bits.

    >>> records = [{"clients": 2.0, "uplink_bits": 32.0, "downlink_bits": 256.0}]
    >>> model = jax.numpy.zeros(4)
    >>> traffic(records, model, model)["uplink_of_model"]
    0.125
    """
    families = start if isinstance(start, tuple) else (start,)
    sizes = [sum(int(x.size) for x in jax.tree.leaves(family)) for family in families]
    numbers: dict[str, Any] = {"client_parameters": sizes if isinstance(start, tuple) else sizes[0]}
    numbers["global_parameters"] = sum(int(x.size) for x in jax.tree.leaves(params))
    total = {name: sum(record.get(name) or 0 for record in records) for name in ("clients", "uplink_bits", "downlink_bits")}
    counted = [way for way in ("up", "down") if any(f"{way}link_bits" in record for record in records)]
    numbers |= {f"{way}link_bytes": total[f"{way}link_bits"] / 8 for way in counted}
    if total["clients"] and "uplink_bytes" in numbers:
        numbers["uplink_of_model"] = total["uplink_bits"] / total["clients"] / (sum(map(dense_bits, families)) / len(families))
    return numbers
