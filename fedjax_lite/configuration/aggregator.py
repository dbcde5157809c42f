"""The table [aggregator] of a configuration, and the arguments that an aggregator takes from other sections."""

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
    """Build an aggregator; an aggregator inside another (`inner`) gets the outer num_byzantine unless its table has its own."""
    for each in table.below():
        if each.path[-1] == "trusted" and isinstance(each.value, int) and each.value >= population:
            raise each.error(f"client {each.value} does not exist: there are {population}, counted from 0")
    return make(table, "aggregator", **defaults)


def of_messages(config: Config, params: Tree, numbers: int | None) -> dict[str, Any]:
    """Return defaults for an aggregator's arguments that depend on the run: its rounds, and the dimension of a message.

    Args:
        params: parameters of the model whose changes are sent.
        numbers: the size of a message that is no change of a model; None: messages are changes of the model.
    """
    table = config.at("aggregator")
    message = params if numbers is None else jax.ShapeDtypeStruct((numbers,), jnp.float32)
    with refusing(table):
        dimension = padded_size(message, *([table.get("block")] if "block" in table else []))
    return {"rounds": config.values["run"].get("rounds"), "dimension": dimension}
