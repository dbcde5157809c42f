"""What an engine is given: one client's round as three functions, and a way to reduce groups of uploads.

An engine alone owns the clients axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.base import Client, Tree


class Upload(NamedTuple):
    """What one client hands back: its message, its new rows of the population's state, its metrics."""

    message: Tree
    rows: Tree
    metrics: Tree


class Local(NamedTuple):
    """One client's round, and how groups of uploads become one part."""

    start: Callable[[Client, Tree], Tree]  # client, rows -> carry
    step: Callable[[Client, Tree, Tree, Array], Tree]  # client, rows, carry, local step -> carry
    finish: Callable[[Client, Tree, Tree], Upload]  # client, rows, carry -> upload
    collect: Callable[[Tree, Client], Tree]  # stack of messages, cohort -> part
    additive: bool  # whether parts of groups add up
    most_steps: int | None  # static bound on a client's steps; None where it is only known at run time


Result = tuple[Tree, Tree, Tree]  # part, rows, metrics
Build = Callable[[Tree, Tree], Local]  # what is common to all clients, examples -> Local; called anew on each device


class Engine(NamedTuple):
    """A way to lay out a cohort."""

    run: Callable[[Build, Tree, Tree, Client, Tree], Result]  # build, common, examples, cohort, rows -> part, rows, metrics
    lanes: Callable[[Tree, int], int]  # what one client carries, clients -> how many train at once on one device


def total(metrics: Tree, counted: Array) -> Tree:
    """Sum per-client metrics over the clients that count."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), tree.zero_where_not(counted, metrics))
