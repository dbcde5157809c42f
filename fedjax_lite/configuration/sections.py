"""What the sections of a configuration describe, for the one that composes an algorithm of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_lite.base import Aggregator, Key, Tree
from fedjax_lite.configuration.model import Architecture
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.data.federated import Source

__all__ = ["Sections"]


class Sections(NamedTuple):
    """The parts that a configuration's sections describe."""

    config: Config
    source: Source
    outputs: tuple[int, str]  # how many classes, and the usual loss
    key: Key  # of the first parameters of models beside the clients'
    known: list[Architecture]  # each family's model
    params: list[Tree]  # its first parameters
    aggregator_of: Callable[[Table], Aggregator]
    attacked: Callable[[Any, Aggregator], tuple[Any, Aggregator]] | None  # work or a loss, and a rule -> both under attack; None: no attack
