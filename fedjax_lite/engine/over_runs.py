"""Deal a study's runs over devices along the mesh axis `runs`, beside the axis `clients` that deals out each run's clients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from fedjax_lite.base import Tree

__all__ = ["over_runs"]

RUNS_AXIS = "runs"


def over_runs(experiment: Callable[..., Tree], in_axes: Any = 0) -> Callable[..., Tree]:
    """`jax.vmap(experiment, in_axes)` whose runs are dealt over the axis `runs` of the mesh in use; without one, `jax.vmap` itself.

    Each device, or row of devices where the mesh also has the axis `clients`, trains its share of the runs. Devices exchange nothing
    until the results are gathered.

    Args:
        experiment: a pure function of arrays, such as one that calls `fl.simulate`. Hand it the data as an argument.
        in_axes: as for `jax.vmap`: 0 for an argument with one row a run, None for an argument that all runs share.

    Returns:
        A function of the same arguments whose results have a leading axis of runs.

    >>> over_runs(lambda rate, steps: rate * steps, (0, None))(jnp.array([1.0, 2.0]), 3).tolist()
    [3.0, 6.0]
    """
    vmapped = jax.vmap(experiment, in_axes)

    def study(*args):
        devices = jax.sharding.get_abstract_mesh().shape.get(RUNS_AXIS, 1)
        if devices == 1:
            return vmapped(*args)
        jax.eval_shape(vmapped, *args)  # for vmap's own errors about arguments that do not fit together
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
        if any(axis not in (0, None) for axis in axes):
            raise ValueError(f"over_runs: in_axes must be 0 or None for each argument, got {in_axes}")
        runs = len(jax.tree.leaves([arg for arg, axis in zip(args, axes, strict=True) if axis == 0])[0])
        share = -(-runs // devices)
        # The last device may have fewer runs than the others: it repeats the last run.
        index = jnp.minimum(jnp.arange(devices * share), runs - 1)
        dealt = [arg if axis is None else jax.tree.map(lambda x: x[index], arg) for arg, axis in zip(args, axes, strict=True)]
        specs = tuple(PartitionSpec() if axis is None else PartitionSpec(RUNS_AXIS) for axis in axes)
        mapped = jax.shard_map(vmapped, in_specs=specs, out_specs=PartitionSpec(RUNS_AXIS), check_vma=False)
        return jax.tree.map(lambda x: x[:runs], mapped(*dealt))

    return study
