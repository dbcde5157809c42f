"""Optimizers and schedules from the tables of a configuration."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import schedules
from fedjax_lite.configuration.config import Config, Where, nearest
from fedjax_lite.configuration.registry import call, make, refusing

__all__ = ["CLOCKS", "chain_of", "scheduled", "with_optimizer"]

CLOCKS = {"round": schedules.on_round, "step": schedules.on_step, "client_step": schedules.on_client_step}


def with_optimizer(
    config: Config, factory: Callable, table: dict[str, Any], path: Where, given: dict[str, Any], others: Sequence[str], clocks: Any
) -> Any:
    """Client work or a server, from its table and the optimizer in it; the one scheduled rate goes beside the optimizer."""
    if "learning_rate" in table:
        raise config.error([*path, "learning_rate"], "unknown key; the rate is a key of the optimizer")
    if "optimizer" not in table:
        raise config.error(path, 'give optimizer, such as { name = "sgd", learning_rate = 0.1 }')
    whole, path, tables = path, [*path, "optimizer"], table.pop("optimizer")
    listed = tables if isinstance(tables, list) else [tables]
    rates = [t["learning_rate"] for t in listed if isinstance(t, dict) and "learning_rate" in t]
    for rate in rates:
        if isinstance(rate, int | float) and not 0 <= rate < float("inf"):
            raise config.error([*path, "learning_rate"], f"must be finite and not negative, got {rate}")
    schedule = [rate for rate in rates if isinstance(rate, dict)]
    if len(schedule) > 1:
        raise config.error([*path, "learning_rate"], "one learning rate can be scheduled, not several")

    def at(rate):
        fixed = [t | {"learning_rate": rate} if isinstance(t, dict) and isinstance(t.get("learning_rate"), dict) else t for t in listed]
        return chain_of(config, "optimizer", fixed if isinstance(tables, list) else fixed[0], path)

    given = given | {"optimizer": at if schedule else at(None), "learning_rate": None}
    if schedule:
        at(0.1)  # refuse now what would be refused while compiling
        given["learning_rate"] = scheduled(config, schedule[0], [*path, "learning_rate"], clocks)
    return call(config, factory, table, whole, given, ["optimizer", *others])


def chain_of(config: Config, kind: str, tables: Any, path: Where) -> optax.GradientTransformation:
    """One transformation, or a list of them in turn; one that wraps others takes a table, or a list, as its inner."""
    if isinstance(tables, dict) and "inner" in tables:
        tables = tables | {"inner": chain_of(config, kind, tables["inner"], [*path, "inner"])}
    if not isinstance(tables, list):
        return make(config, kind, tables, path)
    if not tables:
        raise config.error(path, "is an empty list: give at least one table, or leave it out")
    return optax.chain(*[chain_of(config, kind, table, [*path, i]) for i, table in enumerate(tables)])


def scheduled(config: Config, value: Any, path: Where, clocks: Any) -> Any:
    """A number as it is; a table as an optax schedule on the clock it names."""
    if not isinstance(value, dict):
        return value
    clock = value.get("clock", "round")
    if clock not in list(clocks):
        raise config.error([*path, "clock"], f"unknown clock {clock!r}{nearest(clock, clocks)}; here there are {', '.join(clocks)}")
    schedule = make(config, "schedule", {key: x for key, x in value.items() if key != "clock"}, path)
    with refusing(config, path):
        jax.eval_shape(schedule, jnp.int32(0))
    return CLOCKS[clock](schedule)
