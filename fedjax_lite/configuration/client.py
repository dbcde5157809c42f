"""The table [client] of a configuration: client work, batches and uplink."""

from typing import Any

import jax
import optax

from fedjax_lite.base import ClientWork
from fedjax_lite.batches import Batches
from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.optimizer import CLOCKS, schedule_of, with_optimizer
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.table import Table
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.privacy.record_level import record_level
from fedjax_lite.work import sgd_work

__all__ = ["OF_BATCHES", "batches_of", "uplink_of", "work_of"]

OF_BATCHES = ("batch_size", "epochs", "steps", "shuffle")  # keys of the batches
BESIDE = (*OF_BATCHES, "uplink", "record")  # keys that are not the work's own


def work_of(table: Table, loss_fn: LossFn) -> ClientWork:
    """Build local training by the table's optimizer."""
    gradients = _record_level(table.at("record"), table.get("batch_size")) if "record" in table else None
    return with_optimizer(table.without(BESIDE), sgd_work, CLOCKS, {"loss_fn": loss_fn, "gradients": gradients}, BESIDE)


def batches_of(table: Table) -> Batches:
    """Build the batches: batch size, and epochs or steps, which may be schedules on the round's clock."""
    shuffle = table.get("shuffle", True)
    if not isinstance(shuffle, bool):
        raise table.error(f"must be true or false, got {shuffle!r}", "shuffle")
    if "batch_size" not in table:
        raise table.error('give batch_size: a whole number, or "all" for all of a client\'s examples at once')
    if "epochs" in table and "steps" in table:
        raise table.error("give epochs or steps, not both", "steps")
    for name in ("batch_size", "epochs", "steps"):
        if name in table:
            _check_size(table.at(name), name)
    counts = {name: schedule_of(table.at(name), ["round"]) for name in ("epochs", "steps") if name in table}
    with refusing(table):
        return Batches(None if table.get("batch_size") == "all" else table.get("batch_size"), **counts, shuffle=shuffle)


def uplink_of(table: Table) -> optax.GradientTransformation | None:
    """Build the uplink; None where the table has none."""
    return make(table.at("uplink"), "uplink") if "uplink" in table else None


def _check_size(table: Table, name: str) -> None:
    """Refuse a wrong batch size or number of epochs or steps; epochs and steps may be a schedule, or a study's array."""
    value = table.value
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    part = name == "epochs" and isinstance(value, float)  # which `Batches` looks at
    other = value == "all" if name == "batch_size" else isinstance(value, dict | jax.Array)
    if not whole and not part and not other:
        or_else = {"batch_size": ' or "all"', "epochs": ", a part such as 0.5, or a schedule", "steps": ", or a schedule"}[name]
        raise table.error(f"must be a whole number of at least 1{or_else}, got {value!r}")
    if isinstance(value, int) and value >= 2**31:
        raise table.error(f"must be below 2^31, which steps are counted in, got {value}")


def _record_level(table: Table, batch_size: Any) -> Any:
    """Build gradients that are private for each example, divided by the batch's size."""
    table.checked("{ clip = 1.0, noise_multiplier = 1.0 }")
    if not isinstance(batch_size, int):
        raise table.error(f"divides by the size of a batch, which must be a number: give batch_size, got {batch_size!r}")
    return call(table, record_level, {"batch_size": batch_size})
