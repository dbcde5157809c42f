"""The parts that a configuration's sections describe, from which an algorithm is composed."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_lite.base import Aggregator, Key, Tree
from fedjax_lite.configuration.model import Architecture
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.data.train_test import Source

__all__ = ["Sections"]


class Sections(NamedTuple):
    """The parts that a configuration's sections describe."""

    config: Config
    source: Source
    outputs: tuple[int, str]  # the number of classes, and the usual loss
    key: Key  # for the first parameters of models beside the clients' models
    known: list[Architecture]  # each family's model
    params: list[Tree]  # each family's first parameters
    aggregator_of: Callable[[Table], Aggregator]  # builds the aggregator that a table describes
    attacked: Callable[[Any, Aggregator], tuple[Any, Aggregator]] | None  # work or a loss, and a rule -> both under attack; None: no attack
