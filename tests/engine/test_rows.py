"""Rows that devices have changed reach every device, whatever the blocks in which they go around."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment import axes_mesh
from jax.sharding import PartitionSpec

import fedjax_lite as fl
from fedjax_lite.base import NO_LIMIT
from fedjax_lite.engine import rows

CHANGED = np.array([[4, 1, 9, 7, NO_LIMIT], [0, 8, NO_LIMIT, 3, NO_LIMIT], [NO_LIMIT, 2, 11, 6, 10]], np.int32)  # by each of three devices


@pytest.mark.parametrize("at_once", [1, 2, 5, 9])
def test_every_device_takes_over_what_the_others_changed(at_once, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", at_once * (2 * 4 + 4))  # bytes of so many rows
    before = {"a": jnp.zeros((12, 2)), "b": jnp.zeros(12, jnp.int32)}

    def on_device(stack, changed):
        mine = changed[jax.lax.axis_index("clients")]
        stack = {
            "a": stack["a"].at[mine].set(jnp.stack([1.0 + mine] * 2, 1), mode="drop"),
            "b": stack["b"].at[mine].set(1 + mine, mode="drop"),
        }
        return jax.tree.map(lambda x: x[None], rows.exchange(stack, changed))

    with axes_mesh(clients=3):
        spread = jax.shard_map(
            on_device,
            in_specs=(PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec("clients"),
            axis_names={"clients"},
            check_vma=False,
        )
        after = jax.jit(spread)(before, CHANGED)
    value = np.array([1 + k if k in CHANGED else 0 for k in range(12)])  # 5 is nobody's
    np.testing.assert_array_equal(after["b"], np.broadcast_to(value, (3, 12)))
    np.testing.assert_array_equal(after["a"], np.broadcast_to(value[:, None], (3, 12, 2)))


def test_a_function_of_the_cohorts_rows_changes_these_alone():
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(6, jnp.int32), jnp.array([4, 0, 2]))
    cohort = cohort._replace(place=cohort.place._replace(row=jnp.array([4, NO_LIMIT, 2])))
    seen = []

    def run(cohort, mine):
        seen.append(mine[cohort.place.row])
        return "part", mine + 10, "metrics"

    part, stack, metrics = rows.gathering(run)(cohort, jnp.arange(6.0))
    assert (part, metrics) == ("part", "metrics") and seen[0].tolist() == [4, 5, 2]  # for no row any row
    assert stack.tolist() == [0, 1, 12, 3, 14, 5]
