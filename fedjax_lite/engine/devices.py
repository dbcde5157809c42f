"""Several devices along the axis `clients` of the mesh in use (`jax.set_mesh`): each runs its own queue of clients."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import NO_LIMIT, Client, Tree
from fedjax_lite.engine.layout import Engine, Local

AXIS = "clients"
EVERYWHERE = PartitionSpec()


def over_devices(engine: Engine) -> Engine:
    """The engine on every device: the cohort is dealt by size, then parts are summed, or stacks gathered; without a mesh as it is."""

    def run(local: Local, cohort: Client, rows: Tree):
        devices = number()
        if devices == 1:
            return engine(local, cohort, rows)
        clients = cohort.steps.shape[0]
        collect = local.collect if local.additive else lambda messages, cohort: messages

        def queue(slots):
            """One device's clients; slots past the end are empty."""
            mine, mine_rows = tree.take((cohort, rows), slots)
            steps, weight = (jnp.where(slots < clients, x, 0) for x in (mine.steps, mine.weight))
            part, mine_rows, metrics = engine(local._replace(collect=collect), mine._replace(steps=steps, weight=weight), mine_rows)
            return ((metrics, part), mine_rows) if local.additive else (metrics, (mine_rows, part))

        slots = deal(cohort.steps, devices)
        added, stack = _on_each(queue, slots)
        stack = tree.take(stack, jnp.argsort(slots.reshape(-1))[:clients])  # back in the cohort's order
        if local.additive:
            metrics, part = added
            return part, stack, metrics
        rows_after, messages = stack
        return local.collect(messages, cohort), rows_after, added

    return run


def summed(fn: Callable[[Array], Tree], pieces: Array) -> Tree:
    """`fn(pieces)`, a sum over pieces, each device adding up its share of them; their number must divide by that of the devices."""
    devices = number()
    return fn(pieces) if devices == 1 else _on_each(lambda mine: (fn(mine), ()), pieces.reshape(devices, -1, *pieces.shape[1:]))[0]


def mesh_of(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """The mesh to put in use for clients to be dealt over these devices."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def number() -> int:
    """How many devices the clients are dealt over."""
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS in mesh.explicit_axes:
        raise ValueError(f"the mesh in use has an explicit axis {AXIS!r}: make it with axis_types=(jax.sharding.AxisType.Auto,)")
    return mesh.shape.get(AXIS, 1)


def everywhere(arrays: Tree) -> Tree:
    """Arrays with a copy on every device of the mesh in use, made once and not in every call of a program."""
    mesh = jax.sharding.get_mesh()
    return arrays if mesh.empty else jax.device_put(arrays, NamedSharding(mesh, EVERYWHERE))


def deal(steps: Int[Array, " clients"], devices: int) -> Int[Array, "devices slots"]:
    """The cohort's slots by device, the same number for each; those past the end are empty.

    Longest clients first, each to the device with the least to do that has a slot left (Graham 1969).

    >>> deal(jnp.array([1, 9, 5]), 2).tolist()
    [[1, 4], [2, 0]]
    """
    clients = steps.shape[0]
    each = -(-clients // devices)
    order = jnp.argsort(-steps, stable=True).astype(jnp.int32)

    def place(given, slot):
        load, count = given
        device = jnp.argmin(jnp.where(count < each, load, NO_LIMIT))
        return (load.at[device].add(steps[slot]), count.at[device].add(1)), device * each + count[device]

    empty = jnp.zeros(devices, jnp.int32)
    _, places = jax.lax.scan(place, (empty, empty), order)
    nobody = jnp.arange(clients, clients + devices * each, dtype=jnp.int32)
    return nobody.at[places].set(order).reshape(devices, each)


def _on_each(fn: Callable[[Array], tuple[Tree, Tree]], share: Array) -> tuple[Tree, Tree]:
    """`fn(share[d])` on device d: its first result is summed over devices, its second, a stack, concatenated."""

    def on_device(share):
        added, stack = fn(share[jax.lax.axis_index(AXIS)])
        return jax.lax.psum(added, AXIS), jax.lax.all_gather(stack, AXIS, tiled=True)

    return jax.shard_map(on_device, in_specs=EVERYWHERE, out_specs=EVERYWHERE, axis_names={AXIS}, check_vma=False)(share)
