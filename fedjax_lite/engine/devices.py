"""Several devices: each runs its own queue of clients, dealt by size; then parts are summed, or stacks gathered."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import Client, Tree
from fedjax_lite.engine.layout import Engine, Local

AXIS = "clients"


def over_devices(engine: Engine) -> Engine:
    """The engine on every device along the axis `clients` of the mesh in use (`jax.set_mesh`); as it is where there is none."""

    def run(local: Local, cohort: Client, rows: Tree):
        mesh = jax.sharding.get_abstract_mesh()
        devices = mesh.shape.get(AXIS, 1)
        if devices == 1:
            return engine(local, cohort, rows)
        if AXIS in mesh.explicit_axes:
            raise ValueError(f"the mesh in use has an explicit axis {AXIS!r}: make it with axis_types=(jax.sharding.AxisType.Auto,)")
        clients = cohort.steps.shape[0]
        collect = local.collect if local.additive else lambda messages, cohort: messages

        def queue(slots, cohort, rows):
            """One device's clients; slots past the end are empty."""
            mine, mine_rows = tree.take((cohort, rows), slots)
            steps, weight = (jnp.where(slots < clients, x, 0) for x in (mine.steps, mine.weight))
            return engine(local._replace(collect=collect), mine._replace(steps=steps, weight=weight), mine_rows)

        def on_device(slots, cohort, rows):
            part, rows, metrics = queue(slots[jax.lax.axis_index(AXIS)], cohort, rows)
            added, stack = ((metrics, part), rows) if local.additive else (metrics, (rows, part))
            return jax.lax.psum(added, AXIS), jax.lax.all_gather(stack, AXIS, tiled=True)

        everywhere = PartitionSpec()
        together = jax.shard_map(on_device, in_specs=everywhere, out_specs=everywhere, axis_names={AXIS}, check_vma=False)
        slots = deal(cohort.steps, devices)
        added, stack = together(slots, cohort, rows)
        stack = tree.take(stack, jnp.argsort(slots.reshape(-1))[:clients])  # back in the cohort's order
        if local.additive:
            metrics, part = added
            return part, stack, metrics
        rows, messages = stack
        return local.collect(messages, cohort), rows, added

    return run


def deal(steps: Int[Array, " clients"], devices: int) -> Int[Array, "devices slots"]:
    """The cohort's slots by device, longest clients first and to and fro, the same number for each; those past the end are empty.

    >>> deal(jnp.array([1, 9, 5]), 2).tolist()
    [[1, 3], [2, 0]]
    """
    clients = steps.shape[0]
    each = -(-clients // devices)
    order = jnp.argsort(-steps, stable=True).astype(jnp.int32)
    order = jnp.concatenate([order, jnp.arange(clients, each * devices, dtype=jnp.int32)]).reshape(each, devices)
    return jnp.where(jnp.arange(each)[:, None] % 2 == 0, order, order[:, ::-1]).T
