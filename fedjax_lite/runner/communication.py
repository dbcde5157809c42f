"""What a run's models are in size, and what travelled for them."""

from collections.abc import Sequence
from typing import Any

import jax

from fedjax_lite.base import Tree
from fedjax_lite.ledger import dense_bits

__all__ = ["traffic"]


def traffic(records: Sequence[dict[str, Any]], start: Tree, params: Tree) -> dict[str, Any]:
    """A few numbers for a summary, on the host.

    Args:
        records: of the rounds, with "clients", "uplink_bits" and "downlink_bits".
        start: the parameters a run was given: of the clients' model, or a tuple with those of each family.
        params: the global model.

    Returns:
        "client_parameters" (of families a list), "global_parameters", "uplink_bytes" and "downlink_bytes" (of all rounds), and
        "uplink_of_model": bits that a client sent in a round, on average, over those of its model in float32 (of families, of the mean
        over them); without the numbers that no record has.

    >>> records = [{"clients": 2.0, "uplink_bits": 32.0, "downlink_bits": 256.0}]
    >>> model = jax.numpy.zeros(4)
    >>> traffic(records, model, model)["uplink_of_model"]
    0.125
    """
    families = start if isinstance(start, tuple) else (start,)
    sizes = [sum(int(x.size) for x in jax.tree.leaves(family)) for family in families]
    found: dict[str, Any] = {"client_parameters": sizes if isinstance(start, tuple) else sizes[0]}
    found["global_parameters"] = sum(int(x.size) for x in jax.tree.leaves(params))
    total = {name: sum(record.get(name) or 0 for record in records) for name in ("clients", "uplink_bits", "downlink_bits")}
    found |= {f"{way}link_bytes": total[f"{way}link_bits"] / 8 for way in ("up", "down") if f"{way}link_bits" in (records or [{}])[-1]}
    if total["clients"] and "uplink_bytes" in found:
        found["uplink_of_model"] = total["uplink_bits"] / total["clients"] / (sum(map(dense_bits, families)) / len(families))
    return found
