"""Rules over a model's leaves, as a configuration writes them."""

from typing import Any

from fedjax_lite.base import Tree
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.configuration.table import Table
from fedjax_lite.leaves import chosen, last_layer
from fedjax_lite.models import Model

__all__ = ["leaves_of", "rule_of"]


def leaves_of(sections: Sections, table: Table, some: bool = True) -> Any:
    """Return the rule that a text describes, over the leaves of the clients' model."""
    return rule_of(table, sections.known[0].model, sections.source.example, sections.params[0], some)


def rule_of(table: Table, model: Model, example: Tree, params: Tree, some: bool = True) -> Any:
    """Return the rule that a text describes; "last layer" is that of the model, and others must fit its leaves, some of them or any."""
    with refusing(table):
        if table.value == "last layer":
            return last_layer(model, example)
        chosen("the rule", table.value, params, some)
    return table.value
