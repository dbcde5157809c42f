"""Where arrays lie: a copy on every device of the mesh in use (`jax.set_mesh`), or rows split over its axis `clients`."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_lite.base import Tree
from fedjax_lite.tree import is_key, keys_again, words

AXIS = "clients"
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(AXIS)


def mesh_of(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """The mesh to put in use for clients to be dealt over these devices."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def number() -> int:
    """How many devices the clients are dealt over."""
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS in mesh.explicit_axes:
        raise ValueError(f"the mesh in use has an explicit axis {AXIS!r}: make it with axis_types=(jax.sharding.AxisType.Auto,)")
    return mesh.shape.get(AXIS, 1)


def local_number() -> int:
    """How many devices of the mesh in use this process has, along all of its axes."""
    mesh = jax.sharding.get_mesh()
    return max(1, sum(device.process_index == jax.process_index() for device in mesh.devices.flat)) if not mesh.empty else 1


def everywhere(arrays: Tree) -> Tree:
    """Arrays with a copy on every device of the mesh in use, or on the one device, made once and not in every call of a program."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.device_put(arrays)
    sharding = NamedSharding(mesh, EVERYWHERE)

    def put(x):
        """Devices of other processes are given their copies there."""
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and is_key(x):
            return keys_again(put(words(x)), x)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, arrays) if jax.process_count() > 1 else jax.device_put(arrays, sharding)


def shapes(arrays: Tree) -> Tree:
    """Stand-ins for arrays that lie as `everywhere` puts them, or as they lie on several devices already."""
    mesh = jax.sharding.get_mesh()
    copied = None if mesh.empty else NamedSharding(mesh, EVERYWHERE)

    def leaf(x):
        placed = getattr(x, "sharding", None)
        split = isinstance(placed, NamedSharding) and placed.spec == SPLIT
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed if split else copied)

    return jax.tree.map(leaf, arrays)


def here() -> list[int]:
    """Which places along the axis are devices of this process."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return [0]
    devices = number()
    found = NamedSharding(mesh, SPLIT if AXIS in mesh.shape else EVERYWHERE).addressable_devices_indices_map((devices,))
    return sorted({_first_row(index) for index in found.values()})


def split(parts: dict[int, Tree]) -> Tree:
    """A stack whose rows lie on different devices: those of `parts[place]` on the device at that place, for the places `here`."""
    mesh, devices = jax.sharding.get_mesh(), number()
    if mesh.empty and jax.default_backend() == "cpu":
        return parts[0]  # read where they lie: a copy on a CPU's device would be a second one
    if devices == 1:
        return everywhere(parts[0])

    def leaf(*mine):
        rows = len(mine[0])
        of = dict(zip(parts, mine, strict=True))
        shape, sharding = (devices * rows, *mine[0].shape[1:]), NamedSharding(mesh, SPLIT)
        return jax.make_array_from_callback(shape, sharding, lambda index: of[_first_row(index) // rows])

    return jax.tree.map(leaf, *parts.values())


def _first_row(index: Any) -> int:
    return index[0].start or 0
