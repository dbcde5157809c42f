"""The contract of an engine, which is given one client's round as three functions and a function that reduces groups of messages.

The clients axis exists in engines alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.base import Client, Tree


class Upload(NamedTuple):
    """One client's results of a round: its message, its new own and uplink rows, its metrics."""

    message: Tree
    rows: Tree
    metrics: Tree


class Local(NamedTuple):
    """One client's round, and the function that reduces a group of messages to a part."""

    start: Callable[[Client, Tree], Tree]  # client, rows -> carry
    step: Callable[[Client, Tree, Tree, Array], Tree]  # client, rows, carry, local step -> carry
    finish: Callable[[Client, Tree, Tree], Upload]  # client, rows, carry -> upload
    collect: Callable[[Tree, Client], Tree]  # stack of messages, cohort -> part
    additive: bool  # True: parts of groups add leaf by leaf; False: only the whole cohort's messages are collected
    most_steps: int | None  # static bound on a client's steps; None where the bound is only known at run time


Outcome = tuple[Tree, Tree, Tree]  # part, all rows after the round, metrics
Build = Callable[[Tree, Tree], Local]  # arrays common to all clients, examples -> Local; called on each device


class Engine(NamedTuple):
    """A way to lay a cohort out on devices.

    The rows are those of all clients; the cohort's `Client.place.row` says which is whose, a number past the end that a slot has none.
    """

    run: Callable[[Build, Tree, Tree, Client, Tree], Outcome]  # build, common, examples, cohort, rows -> part, rows, metrics
    lanes: Callable[[Tree, int], int]  # carry of one client, clients -> number that trains at once on one device
    queued: bool = False  # True: a lane that is done takes the next client of a queue, and `lanes` is exact


def total(metrics: Tree, counted: Array) -> Tree:
    """Sum metrics `[clients]` over the clients where `counted` is True."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), tree.zero_where_not(counted, metrics))
