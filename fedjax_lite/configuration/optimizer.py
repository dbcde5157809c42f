"""Build the optimizers and the schedules of a configuration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite import schedules
from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.table import Table

__all__ = ["CLOCKS", "optimizer_of", "schedule_of", "with_optimizer"]

CLOCKS = {"round": schedules.on_round, "step": schedules.on_step, "client_step": schedules.on_client_step}


def with_optimizer(
    table: Table, factory: Callable, clocks: Iterable[str], given: Mapping[str, Any] | None = None, also: Sequence[str] = ()
) -> Any:
    """Call the factory of a part that has an optimizer, for instance of client work or a server, with its table's values.

    Args:
        table: without the keys that are not the factory's.
        factory: takes `optimizer` and `learning_rate`.
        clocks: clocks that a learning rate can be scheduled on.
        given, also: as in `call`.
    """
    if "learning_rate" in table:
        raise table.error("unknown key; the rate is a key of the optimizer", "learning_rate")
    if "optimizer" not in table:
        raise table.error('give optimizer, such as { name = "sgd", learning_rate = 0.1 }')
    optimizer, rate = optimizer_of(table.at("optimizer"), clocks)
    both = {"optimizer": optimizer, "learning_rate": rate}
    return call(table.without(["optimizer"]), factory, {**(given or {}), **both}, ["optimizer", *also])


def optimizer_of(table: Table, clocks: Iterable[str]) -> tuple[Any, Any]:
    """Build the optimizer of a table, or of a list of tables to chain; return the optimizer and None.

    With a scheduled learning rate, return a function of the rate that makes the optimizer, and the schedule on its clock.
    """
    rates = [each.at("learning_rate") for each in table.items() if "learning_rate" in each]
    for rate in rates:
        if isinstance(rate.value, int | float) and not 0 <= rate.value < float("inf"):
            raise rate.error(f"must be finite and not negative, got {rate.value}")
    schedules = [rate for rate in rates if isinstance(rate.value, dict)]
    if len(schedules) > 1:
        raise schedules[1].error("one learning rate can be scheduled, not several")

    def at(rate):
        if not schedules:
            return make(table, "optimizer")
        fixed = [
            each.also(learning_rate=rate).value if isinstance(each.get("learning_rate"), dict) else each.value for each in table.items()
        ]
        return make(replace(table, value=fixed if isinstance(table.value, list) else fixed[0]), "optimizer")

    if not schedules:
        return at(None), None
    at(0.1)  # for errors now, and not while compiling
    return at, schedule_of(schedules[0], clocks)


def schedule_of(table: Table, clocks: Iterable[str]) -> Any:
    """Return a number as it is; build the schedule of a table, on the clock that the table names."""
    if not isinstance(table.value, dict):
        return table.value
    clock = table.get("clock", "round")
    if clock not in list(clocks):
        raise table.error(f"unknown clock {clock!r}{nearest(clock, clocks)}; here there are {', '.join(clocks)}", "clock")
    schedule = make(table.without(["clock"]), "schedule")
    with refusing(table):
        jax.eval_shape(schedule, jnp.int32(0))
    return CLOCKS[clock](schedule)
