"""Run a cohort over devices, the axis `clients` of the mesh in use (`jax.set_mesh`); each device has its own queue of clients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int

from fedjax_lite import tree
from fedjax_lite.base import NO_LIMIT, Client, Tree
from fedjax_lite.engine.contract import Build, Local, Outcome
from fedjax_lite.engine.placement import CLIENTS_AXIS, EVERYWHERE, SPLIT, device_count
from fedjax_lite.engine.rows import exchange, row_of


def over_devices(engine: Callable[[Local, Client, Tree], Outcome]) -> Callable[[Build, Tree, Tree, Client, Tree], Outcome]:
    """Run `engine` on every device with its share of the cohort, then sum parts or gather messages; on one device, `engine` alone."""

    def run(build: Build, common: Tree, examples: Tree, cohort: Client, rows: Tree) -> Outcome:
        devices, local = device_count(), build(common, examples)
        if devices == 1:
            return engine(local, cohort, rows)
        clients = cohort.steps.shape[0]

        def queue(operands, examples):
            """Run this device's share of the cohort; a slot beyond the cohort's end is empty."""
            common, cohort, rows, slots = operands
            slots = slots[jax.lax.axis_index(CLIENTS_AXIS)]
            share = _only(slots < clients, tree.take(cohort, slots))
            alone = build(common, examples)
            alone = alone if alone.additive else alone._replace(collect=lambda messages, cohort: messages)
            part, rows, metrics = engine(alone, share, rows)
            rows = exchange(rows, jax.lax.all_gather(row_of(share), CLIENTS_AXIS))
            return ((metrics, part), (), rows) if local.additive else (metrics, part, rows)

        if cohort.place.device is None:
            slots, spec = queues(assign(cohort.steps, devices), devices), EVERYWHERE
        else:
            slots, spec = queues(cohort.place.device, devices), SPLIT
        added, messages, rows = _on_each(queue, (common, cohort, rows, slots), examples, spec)
        if local.additive:
            metrics, part = added
            return part, rows, metrics
        messages = tree.take(messages, jnp.argsort(slots.reshape(-1))[:clients])  # back in the cohort's order
        return local.collect(messages, cohort), rows, added

    return run


def _only(mask: Bool[Array, " clients"], cohort: Client) -> Client:
    """Empty the slots where `mask` is False."""
    steps, weight = (jnp.where(mask, x, 0) for x in (cohort.steps, cohort.weight))
    return cohort._replace(steps=steps, weight=weight, place=cohort.place._replace(row=jnp.where(mask, row_of(cohort), NO_LIMIT)))


def sum_pieces(fn: Callable[[Tree, Array], Tree], common: Tree, pieces: Array) -> Tree:
    """Compute `fn(common, pieces)`, a sum over pieces, with a share of the pieces on each device; shares must be equal."""
    return fn(common, pieces) if device_count() == 1 else _on_each(lambda *operands: (fn(*operands), (), ()), common, pieces, SPLIT)[0]


def map_pieces(fn: Callable[[Tree, Tree], Tree], common: Tree, stack: Tree) -> Tree:
    """Compute `fn(common, rows)` on each device for its rows of a stack from `split`; concatenate the resulting stacks."""
    return fn(common, stack) if device_count() == 1 else _on_each(lambda *operands: ((), fn(*operands), ()), common, stack, SPLIT)[1]


def assign(steps: Int[Array, " clients"], devices: int) -> Int[Array, " clients"]:
    """Return the device of each slot of a cohort; a device gets at most clients / devices slots, rounded up.

    Clients with most steps first, each to the device with fewest steps that has a slot left (Graham 1969).

    >>> assign(jnp.array([1, 9, 5]), 2).tolist()
    [1, 0, 1]
    """
    each = -(-steps.shape[0] // devices)
    order = jnp.argsort(-steps, stable=True).astype(jnp.int32)

    def place(given, slot):
        load, count = given
        device = jnp.argmin(jnp.where(count < each, load, NO_LIMIT)).astype(jnp.int32)
        return (load.at[device].add(steps[slot]), count.at[device].add(1)), device

    empty = jnp.zeros(devices, jnp.int32)
    return jnp.zeros_like(order).at[order].set(jax.lax.scan(place, (empty, empty), order)[1])


def queues(device: Int[Array, " clients"], devices: int) -> Int[Array, "devices slots"]:
    """Return each device's slots of the cohort, equally many; a number from `clients` on is an empty slot.

    >>> queues(jnp.array([1, 0, 1]), 2).tolist()
    [[1, 4], [0, 2]]
    """
    clients = device.shape[0]
    each = -(-clients // devices)
    order = jnp.argsort(device, stable=True).astype(jnp.int32)
    place = jnp.arange(clients, dtype=jnp.int32) - jnp.searchsorted(device[order], device[order]).astype(jnp.int32)
    nobody = jnp.arange(clients, clients + devices * each, dtype=jnp.int32)
    return nobody.at[device[order] * each + place].set(order).reshape(devices, each)


def _on_each(fn: Callable[[Tree, Tree], tuple[Tree, Tree, Tree]], common: Tree, data: Tree, spec: PartitionSpec) -> tuple[Tree, Tree, Tree]:
    """Compute `fn(common, data)` on each device; sum the first result over devices and concatenate the second, a stack; the third is
    the same on all.

    If `spec` is SPLIT, each device has its own rows of `data`. Arrays should be operands: an array that `fn` closes over keeps a sharding
    that has no meaning here. `jnp.zeros_like`, for example, fails on it.
    """

    def on_device(common, data):
        added, stack, same = fn(common, data)
        return jax.lax.psum(added, CLIENTS_AXIS), jax.lax.all_gather(stack, CLIENTS_AXIS, tiled=True), same

    if CLIENTS_AXIS in jax.sharding.get_abstract_mesh().manual_axes:  # inside `over_runs`, each device runs this code already
        if spec == SPLIT:
            place, devices = jax.lax.axis_index(CLIENTS_AXIS), device_count()
            data = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:])[place], data)
        return on_device(common, data)
    return jax.shard_map(on_device, in_specs=(EVERYWHERE, spec), out_specs=EVERYWHERE, axis_names={CLIENTS_AXIS}, check_vma=False)(
        common, data
    )
