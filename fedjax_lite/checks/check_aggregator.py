"""`checks.aggregator`: every property of the contract, tried on one rule."""

from collections.abc import Collection

import jax
import jax.numpy as jnp

from fedjax_lite.base import Aggregator, Tree
from fedjax_lite.checks.aggregator_contract import REQUIRED
from fedjax_lite.checks.aggregator_properties import REPORTED
from fedjax_lite.checks.answers import Verdict, answers
from fedjax_lite.checks.breakdown import breakdown
from fedjax_lite.checks.probe import Probe, probe
from fedjax_lite.checks.report import Report

_BREAKDOWN = "withstands far-away messages"


def aggregator(new: Aggregator, *, clients: int = 11, message: Tree = None, only: Collection[str] | None = None, seed: int = 0) -> Report:
    """Try out whether an aggregator keeps the contract of `fl.Aggregator`, and report its other properties.

    A property counts as broken only by a difference well above what float32 rounding explains (1e-4 of the largest coordinate), a
    value that is not finite, another shape or dtype, or an error.

    A spread is the largest distance of an honest message from the honest messages' mean. `breakdown` is the largest f, searched from 1
    upwards, for which f of the clients can't bring the aggregate further than 10 spreads from that mean by sending messages 1e3 to 1e8
    spreads away: the same from all, opposite to each other, each in a direction of its own, in one coordinate, or at growing distances.
    `breakdown` is measured, not proved.

    Args:
        new: what a factory returns, for instance `fl.aggregators.median()`.
        clients: how many messages it is given; at least 3.
        message: an example of one client's message, of which only structure and shapes matter; a matrix, a vector and a number by
            default.
        only: the properties to ask, as they stand in the table; all by default.
        seed: of the messages.

    Returns:
        A `Report`: rows of (property, holds, required, evidence), `ok`, and `breakdown`. A rule that raises its own ValueError, for
        instance for so few clients, gives rows "refused"; any other error is a "no" with its first line.

    Raises:
        TypeError: if `new` is not an aggregator.
        ValueError: for fewer than 3 clients, a message without numbers, or an unknown property.

    >>> import fedjax_lite as fl
    >>> asked = ["order of clients does not matter", "empty slots do not matter", "withstands far-away messages"]
    >>> report = fl.checks.aggregator(fl.aggregators.median(), clients=7, only=asked)
    >>> report.ok, report.breakdown
    (True, 3)
    """
    if not isinstance(new, Aggregator):
        raise TypeError(f"checks.aggregator: new must be a fl.Aggregator, got {new!r}: call the function that makes one")
    if clients < 3:
        raise ValueError(f"checks.aggregator: clients must be at least 3, got {clients}")
    if message is None:
        message = {"matrix": jnp.zeros((3, 2)), "vector": jnp.zeros(4), "number": jnp.zeros(())}
    if not sum(jnp.size(x) for x in jax.tree.leaves(message)):
        raise ValueError(f"checks.aggregator: message must hold numbers, got {message!r}")
    measured: list[int] = []

    def withstood(built: Probe) -> Verdict:
        most, verdict = breakdown(built)
        measured.append(most)
        return verdict

    with jax.default_matmul_precision("highest"):  # an accelerator's short matmuls would look like broken properties
        rows = answers(lambda: probe(new, clients, message, seed), REQUIRED, REPORTED | {_BREAKDOWN: withstood}, only)
    return Report(clients, rows, measured[0] if measured else None)
