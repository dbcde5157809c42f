"""The table [aggregator] of a configuration, and what an aggregator may take from other sections."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators import padded_size
from fedjax_lite.base import Aggregator, Tree
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.table import Config, Table

__all__ = ["aggregator_of", "of_messages"]


def aggregator_of(table: Table, defaults: Mapping[str, Any], population: int) -> Aggregator:
    """An aggregator; one that wraps another takes its table as inner, which has the same num_byzantine if it does not say."""
    for each in table.below():
        if each.path[-1] == "trusted" and isinstance(each.value, int) and each.value >= population:
            raise each.error(f"client {each.value} does not exist: there are {population}, counted from 0")
    return make(table, "aggregator", **defaults)


def of_messages(config: Config, params: Tree, numbers: int | None) -> dict[str, Any]:
    """What an aggregator is told of a run's messages, where its table does not say.

    Args:
        params: of the model whose changes are sent.
        numbers: how many a message has where it is no change of a model; None: it is.
    """
    table = config.at("aggregator")
    message = params if numbers is None else jax.ShapeDtypeStruct((numbers,), jnp.float32)
    with refusing(table):
        dimension = padded_size(message, *([table.get("block")] if "block" in table else []))
    return {"rounds": config.values["run"].get("rounds"), "dimension": dimension}
