"""Estimate from shapes the bytes that a run takes on a device, and refuse a run that cannot fit before compilation."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fedjax_lite.base import Algorithm, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.engine import placement
from fedjax_lite.metrics import readable
from fedjax_lite.sampling.draw import cohort_shapes
from fedjax_lite.sampling.participation import Sampler

__all__ = [
    "Need",
    "check_fits",
    "check_model",
    "cohorts_held",
    "device_memory",
    "goes_to_host",
    "host_memory",
    "nbytes",
    "needs",
    "on_host",
    "workspace",
]

CGROUP = Path("/sys/fs/cgroup/memory.max")
COPIES = 3  # of a model in training, at least: the received model, the trained model, and their difference
FEW, LARGE = 0.1, 2**24  # participations of a client, bytes: with fewer, and more, rows go to host memory


class Need(NamedTuple):
    """One entry of the estimate: the bytes of a part of a run on each device."""

    bytes: int
    note: str
    remedy: str  # the number to lower, or another change of the settings
    copied: int = 0  # further bytes that XLA's products and sorts take on a CPU and XLA's memory analysis omits
    rows: int = 0  # how many there are, where it is a stack


def needs(
    algorithm: Algorithm, data: FederatedData | Store, params: Tree, state: Any, sampler: Sampler, test: Any, rows: int | None = None
) -> dict[str, Need]:
    """Estimate the bytes on each device in a round, by name, without the working memory of a local step.

    Lanes and messages are left out where the algorithm has no layout.

    Args:
        state: the shapes of the state.
        rows: the number of clients whose own and uplink rows are on the device; None: the population.
    """
    whole = data.shapes() if isinstance(data, Store) else data
    cohort = cohort_shapes(sampler, algorithm, state, whole.size)
    clients = cohort.id.shape[0]
    each = nbytes(whole.examples) // max(1, jax.tree.leaves(whole.examples)[0].shape[0])
    if isinstance(data, Store):
        mean = int(data.size.sum()) / data.population
        held = int(cohorts_held() * clients * mean * each / placement.device_count()) + data.size.nbytes
        found = {"data": Need(held, f"{cohorts_held()} cohorts, of a store", "lower the clients a round")}
    else:
        stream = 'write the population with fl.data.save and stream it ([data] name = "store")'
        found = {"data": Need(nbytes(whole), f"{whole.population:,} clients", stream)}
    if test is not None:
        found["test data"] = Need(nbytes(test), "", "hold out fewer examples")
    server = nbytes((state.server, state.aggregator, params))
    found["server"] = Need(server, "model, optimizer, aggregator, and the parameters given", "take a smaller model")
    rows = data.population if rows is None else rows
    kept = nbytes((state.own, state.uplink)) // data.population * rows
    found["clients' state"] = Need(kept, f"of {rows:,} clients", "keep it in host memory (own_on_host = true)")
    if algorithm.layout is None:
        return found
    stacks = jax.eval_shape(algorithm.layout.stacks, state, whole, cohort)
    lanes = _rows_of(stacks["lanes"])
    remedy = f"lower lanes ({lanes}) of packed(lanes)" if lanes < -(-clients // placement.device_count()) else "lower the clients a round"
    # Measured on CPUs: XLA copies each lane's model once, and half of the messages.
    found["lane stack"] = Need(nbytes(stacks["lanes"]), f"{lanes} lane{'s' * (lanes != 1)}", remedy, lanes * nbytes(params), lanes)
    messages = nbytes(stacks["messages"])
    note = f"of {_rows_of(stacks['messages'])} clients" if messages else "added up as they come"
    found["messages"] = Need(messages, note, f"lower the clients a round ({clients}), or take an aggregator that adds", messages // 2)
    return found


def on_host(row: int, population: int, clients: int, rounds: int, copied: int) -> Need:
    """Estimate the bytes of host memory for rows of the clients that take part in a run, as if drawn evenly; refuse too many.

    Args:
        row: bytes of a client's own and uplink row.
        clients: the slots of a round.
        copied: the number of rows on their way to or from the device.

    Raises:
        ValueError: if the host has fewer bytes.
    """
    met = round(population * (1 - (1 - min(1.0, clients / population)) ** rounds))
    found = Need((met + copied) * row, f"of about {met:,} of {population:,} clients, and {copied:,} rows on their way", "lower the rounds")
    limit = host_memory()
    if limit is not None and found.bytes > limit:
        raise ValueError(
            f"what about {met:,} clients keep takes {readable(found.bytes)} of host memory, which has {readable(limit)}: lower the rounds "
            f"({rounds}), the clients a round ({clients}) or the model's width"
        )
    return found


def check_fits(found: dict[str, Need], limit: int | None, extra: int = 0) -> None:
    """Refuse a run that needs more bytes than a device has.

    Args:
        found: from `needs`.
        limit: the device's bytes; None where they are unknown.
        extra: further bytes, known from a compiled program.

    Raises:
        ValueError: with the estimate, its largest parts and the number to lower.
    """
    total = sum(need.bytes for need in found.values()) + extra
    if limit is None or total <= limit:
        return
    largest = sorted((name for name in found if found[name].bytes), key=lambda name: -found[name].bytes)[:3]
    parts = ", ".join(f"{name} {readable(found[name].bytes)}" for name in largest)
    remedy = "lower the batch size" if extra > found[largest[0]].bytes else found[largest[0]].remedy
    raise ValueError(f"a round needs {readable(total)} on each device, which has {readable(limit)} ({parts}): {remedy}")


def check_model(shapes: Tree, limit: int | None) -> None:
    """Refuse a model that no device can hold, before its first number is drawn.

    Args:
        shapes: the shapes of its parameters.
        limit: the device's bytes; None where they are unknown.

    Raises:
        ValueError: naming the leaf, or the bytes.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        if leaf.size >= 2**31:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"the leaf {name} would have {leaf.size:,} numbers, and an array has fewer than 2^31: lower the model's width")
    if limit is not None and COPIES * nbytes(shapes) > limit:
        raise ValueError(
            f"its parameters take {readable(nbytes(shapes))}, {COPIES} times in training, and the device has {readable(limit)}: "
            "lower the model's width"
        )


def goes_to_host(wanted: bool | None, algorithm: Algorithm, state: Any, participations: float) -> bool:
    """Return whether own and uplink rows go to host memory.

    Args:
        wanted: the user's choice; None: if rows take more than half of a device, or are large and few clients take part.
        participations: how often a client takes part in the run, on average.

    Raises:
        ValueError: if `wanted` is True for an algorithm whose layout does not give the rows that clients start with.
    """
    limit, known = device_memory(), algorithm.layout is not None and algorithm.layout.rows is not None
    rows = nbytes((state.own, state.uplink))
    if wanted is None:
        untouched = rows > LARGE and participations < FEW
        return bool(known and (untouched or (limit and rows > limit / 2)))
    if wanted and not known:
        raise ValueError(
            "own_on_host=True needs an algorithm whose layout tells how each client starts: build it with fl.federate, not of families, "
            "and of clients of whom some take part (in dpsgd and cfl all do)"
        )
    return wanted


def workspace(found: dict[str, Need]) -> int:
    """Return the bytes that a compiled program takes on a CPU and XLA's memory analysis omits; 0 on other devices."""
    return sum(need.copied for need in found.values()) if jax.default_backend() == "cpu" else 0


def cohorts_held() -> int:
    """Count the cohorts of a store with examples in memory: one in training, one being copied and, on a CPU, one being read."""
    return 3 if jax.default_backend() == "cpu" else 2


def device_memory() -> int | None:
    """Return the bytes of each device of the mesh in use; None where unknown. Devices of one CPU share the host's bytes."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    host = host_memory()
    return host and host // placement.local_number()


def nbytes(shapes: Tree) -> int:
    """Return the bytes of a tree of arrays or shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def _rows_of(stack: Tree) -> int:
    """Return the length of a stack's axis 0; 0 of a stack without leaves."""
    return jax.tree.leaves(stack)[0].shape[0] if jax.tree.leaves(stack) else 0


def host_memory() -> int | None:
    """Return the host's bytes, or its control group's limit where that is lower; None where unknown."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(installed, int(CGROUP.read_text()))
    except (OSError, ValueError):
        return installed
