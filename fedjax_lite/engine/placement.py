"""Place arrays: a copy on every device of the mesh in use (`jax.set_mesh`), or rows split over its axis `clients`."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_lite.base import Tree
from fedjax_lite.tree import is_key, keys_again, words

CLIENTS_AXIS = "clients"
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(CLIENTS_AXIS)


def mesh_of(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """Make a mesh whose axis `clients` deals clients over `devices`; put in use by `jax.set_mesh`."""
    return jax.make_mesh((len(devices),), (CLIENTS_AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def device_count() -> int:
    """Return the number of devices that clients are dealt over."""
    mesh = jax.sharding.get_abstract_mesh()
    if CLIENTS_AXIS in mesh.explicit_axes:
        raise ValueError(f"the mesh in use has an explicit axis {CLIENTS_AXIS!r}: make it with axis_types=(jax.sharding.AxisType.Auto,)")
    return mesh.shape.get(CLIENTS_AXIS, 1)


def local_number() -> int:
    """Return the number of devices that this process has in the mesh in use, along all axes."""
    mesh = jax.sharding.get_mesh()
    return max(1, sum(device.process_index == jax.process_index() for device in mesh.devices.flat)) if not mesh.empty else 1


def everywhere(arrays: Tree) -> Tree:
    """Copy arrays to every device of the mesh in use, or to the one device: once, not in every call of a program."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.device_put(arrays)
    sharding = NamedSharding(mesh, EVERYWHERE)

    def put(x):
        """Copy `x` to this process's devices; other processes make the copies on theirs."""
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and is_key(x):
            return keys_again(put(words(x)), x)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, arrays) if jax.process_count() > 1 else jax.device_put(arrays, sharding)


def shapes(arrays: Tree) -> Tree:
    """Return shapes of arrays, with their sharding if they are split over devices, else as `everywhere` places arrays."""
    mesh = jax.sharding.get_mesh()
    copied = None if mesh.empty else NamedSharding(mesh, EVERYWHERE)

    def leaf(x):
        placed = getattr(x, "sharding", None)
        split = isinstance(placed, NamedSharding) and placed.spec == SPLIT
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed if split else copied)

    return jax.tree.map(leaf, arrays)


def local_devices() -> list[int]:
    """Return the places along the axis `clients` whose devices belong to this process."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return [0]
    devices = device_count()
    rows = NamedSharding(mesh, SPLIT if CLIENTS_AXIS in mesh.shape else EVERYWHERE).addressable_devices_indices_map((devices,))
    return sorted({_first_row(index) for index in rows.values()})


def split(parts: dict[int, Tree]) -> Tree:
    """Make a stack split over devices: the rows `parts[place]` lie on the device at `place`, for the places in `here()`."""
    mesh, devices = jax.sharding.get_mesh(), device_count()
    if mesh.empty and jax.default_backend() == "cpu":
        return parts[0]  # NumPy arrays as they are: a copy on the CPU's device would double memory
    if devices == 1:
        return everywhere(parts[0])

    def leaf(*pieces):
        rows = len(pieces[0])
        of = dict(zip(parts, pieces, strict=True))
        shape, sharding = (devices * rows, *pieces[0].shape[1:]), NamedSharding(mesh, SPLIT)
        return jax.make_array_from_callback(shape, sharding, lambda index: of[_first_row(index) // rows])

    return jax.tree.map(leaf, *parts.values())


def _first_row(index: Any) -> int:
    """Return the first row of a device's index into a stack."""
    return index[0].start or 0
