"""What a run starts from, and whether that fits together and the devices: known before anything is compiled or written."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Algorithm, Key, State, Tree
from fedjax_lite.data.arrays import check_alike
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.guarantees import hidden
from fedjax_lite.metrics import OF_ROUND, check_names, exponentials, is_evaluation, prefix_of
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.losses import check_labels
from fedjax_lite.privacy.budget import check_private, is_central
from fedjax_lite.refuse import short
from fedjax_lite.runner.convergence import Convergence
from fedjax_lite.runner.memory import Need, check_fits, device_memory, goes_to_host, nbytes, needs, on_host
from fedjax_lite.runner.segments import in_memory
from fedjax_lite.runner.stream import at_once
from fedjax_lite.sampling.check import check_sampler
from fedjax_lite.sampling.draw import cohort_shapes, demand_of_all
from fedjax_lite.sampling.participation import Remembering, Sampler
from fedjax_lite.uplink.feedback import warn_if_seldom

__all__ = ["Setup", "check_clock", "check_guarantee", "decisive_of", "fit_to_devices", "structure", "to_devices", "trace"]


class Setup(NamedTuple):
    """What a run, and its plan, start from."""

    algorithm: Algorithm
    data: FederatedData | Store
    params: Tree
    sampler: Sampler
    rounds: int
    key: Key
    loss_fn: LossFn | None
    test: FederatedData | None
    evaluate_every: int

    @property
    def first(self) -> int:
        """How many rounds the first segment has."""
        return min(self.rounds, self.evaluate_every)

    @property
    def held_out(self) -> FederatedData | Store:
        """What the model is evaluated on."""
        return self.data if self.test is None else self.test


def fit_to_devices(setup: Setup, own_on_host: bool | None) -> tuple[Setup, State, Need | None, dict[str, Need]]:
    """Fit a setup to the devices: with arrays as parameters, its state's shapes, rows' need of host memory, each device's needs."""
    algorithm, data, sampler = setup.algorithm, setup.data, setup.sampler
    params = jax.tree.map(jnp.asarray, setup.params)
    shapes = jax.eval_shape(algorithm.init, params, setup.key)
    check_sampler(sampler, setup.key, data.size)
    check_clock(setup, shapes)
    slots = cohort_shapes(sampler, algorithm, shapes, jax.ShapeDtypeStruct((data.population,), jnp.int32)).id.size
    participations = setup.rounds * slots / data.population
    warn_if_seldom(shapes.uplink, participations)
    rows = host = None
    if goes_to_host(own_on_host, algorithm, shapes, participations):
        row = nbytes((shapes.own, shapes.uplink)) // data.population
        rows = min(data.population, slots * at_once(data, setup.first, slots, row))
        host = on_host(row, data.population, slots, setup.rounds, rows)
    found = needs(algorithm, data, params, shapes, sampler, setup.test, rows)
    check_fits(found, device_memory())
    return setup._replace(params=params), shapes, host, found


def check_clock(setup: Setup, shapes: State) -> None:
    """Let a sampler with a memory refuse what it cannot run with, such as a deadline that no client can meet; refuse a short table.

    Raises:
        ValueError: for a table of arrivals that ends before the run.
    """
    table = getattr(setup.sampler, "arrivals", None)
    if table is not None and len(table.ids) < setup.rounds:
        raise ValueError(
            f"arriving: the table has {len(table.ids)} steps of the server, and the run rounds={setup.rounds}: make a table for as many, "
            "which begins like this one: fl.clock.arrivals(..., rounds=...)"
        )
    if isinstance(setup.sampler, Remembering) and setup.sampler.check is not None:
        setup.sampler.check(np.asarray(setup.data.size), partial(demand_of_all, setup.algorithm, shapes, setup.key, setup.data.size))


def decisive_of(converge: Convergence | None, keep_best: str | None) -> dict[str, str]:
    """Return the metrics that a run decides something by: an argument of `fl.run` -> its metric."""
    return ({"converge": converge.metric} if converge else {}) | ({"keep_best": keep_best} if keep_best else {})


def check_guarantee(setup: Setup, shapes: State, decisive: Mapping[str, str]) -> None:
    """Refuse a private run whose guarantee would not hold, by what its sampler, its state's shapes and its decisive metrics do."""
    sizes, hides = setup.data.size, hidden(shapes.own, shapes.uplink)
    check_private(setup.algorithm.privacy, setup.sampler, sizes, setup.rounds, decisive, hides, is_central(setup.test))


def to_devices(setup: Setup) -> Setup:
    """Copy data, test, parameters and key to every device; a store stays on disk."""
    test, params, key = everywhere((setup.test, setup.params, setup.key))
    data = setup.data if isinstance(setup.data, Store) else everywhere(setup.data)
    return setup._replace(data=data, test=test, params=params, key=key)


def trace(setup: Setup, decisive: Mapping[str, str]) -> None:
    """Trace the first segment, so that what does not fit together is found before anything is compiled or written."""
    algorithm, data, test, loss_fn = setup.algorithm, setup.data, setup.test, setup.loss_fn
    state = jax.eval_shape(algorithm.init, setup.params, setup.key)
    if test is not None:
        check_alike(data, test)
    for part, name in ((data, "data"), (test, "test")):
        if loss_fn is not None and part is not None:
            check_labels(loss_fn, jax.eval_shape(algorithm.params, state), part, name)
    example, data = data.example, data.shapes() if isinstance(data, Store) else data
    held_out = data if test is None else test
    try:
        _, measured, sums, _ = in_memory.of(algorithm, setup.sampler, loss_fn).eval_shape(setup.first, state, data=data, held_out=held_out)
    except Exception as error:  # perhaps of jax, about two shapes alone
        error.add_note(f"while a round was traced of params {_shapes(setup.params)} and examples such as {_shapes(example)}")
        raise
    check_names(measured.keys() - (OF_ROUND - {"round"}), "the algorithm")
    names = [*measured, *(f"{prefix_of(test)}{name}" for name in (*sums, *exponentials(sums).values()))]
    for argument, metric in decisive.items():
        known = [name for name in names if argument != "keep_best" or is_evaluation(name)]
        if metric not in known:
            raise ValueError(f"{argument}: no metric {metric!r}; there are {', '.join(known) or 'none: give loss_fn'}")


def structure(tree: Tree) -> list[str]:
    """Tell the path, dtype and shape of each leaf of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".lstrip() for path, leaf in leaves]


def _shapes(tree: Tree) -> str:
    """Tell a tree's structure in short."""
    return short(", ".join(structure(tree)))
