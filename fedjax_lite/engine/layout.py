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
    step: Callable[[Client, Tree, Array], Tree]  # client, carry, local step -> carry
    finish: Callable[[Client, Tree, Tree], Upload]  # client, rows, carry -> upload
    collect: Callable[[Tree, Client], Tree]  # stack of messages, cohort -> part
    additive: bool  # whether parts of groups add up
    most_steps: int | None  # static bound on a client's steps; None where it is only known at run time


Engine = Callable[[Local, Client, Tree], tuple[Tree, Tree, Tree]]  # local, cohort, rows -> part, rows, metrics


def total(metrics: Tree, counted: Array) -> Tree:
    """Sum per-client metrics over the clients that count."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), tree.zero_where_not(counted, metrics))
