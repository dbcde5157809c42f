"""The trial that each check of an algorithm uses: its programs, compiled on first use, and cohorts for them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite import engine as engines
from fedjax_lite import sampling, tree
from fedjax_lite.base import Algorithm, Client, Key, State, Tree, round_key
from fedjax_lite.checks.answers import Verdict
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.simulate import advance

FEW = 3  # clients of the short cohort
# Rounding allowed in a few rounds, over the largest magnitude of an array; steps amplify rounding tens of times at most.
TOLERANCES = {8: 1e-10, 4: 1e-4, 2: 5e-2}  # by bytes of the dtype


class Trial(NamedTuple):
    """An algorithm with the programs and inputs of its checks."""

    built: Algorithm  # on an engine with fewer lanes than clients
    data: FederatedData
    state: State  # the algorithm's first state
    ids: np.ndarray  # [slots], the clients that take part
    nobody: int | None  # id of a client without examples; None if all have examples
    # engine, slots -> the compiled round: state, ids, weight -> state, metrics. Engine None: the user's own, which can't be chosen.
    step: Callable[[str | None, int], Callable]
    engines: tuple[str, ...]  # names that `step` takes; none if `make` is an algorithm
    traced: list[int]  # one entry for each trace of the round of all slots
    # -> the compiled run of two rounds: key, value of the hyperparameter -> state, history; and whether the program calls Python back.
    run: Callable[[], tuple[Callable, bool]]
    runs: Callable[[], Callable]  # -> the compiled run, vmapped over keys and values
    keys: Key  # [2], of two runs
    values: Any  # [2], of the hyperparameter

    def round(self, state: State, ids: Any, weight: Any = None, engine: str | None = "packed") -> tuple[State, dict[str, Any]]:
        """Run a compiled round of the clients `ids`; `weight` is 1 by default."""
        weight = np.ones(len(ids)) if weight is None else weight
        return self.step(engine if self.engines else None, len(ids))(state, np.asarray(ids, np.int32), np.asarray(weight, float))


def trial(make: Any, data: FederatedData, params: Tree, clients: int, values: tuple[float, float] | None, seed: int) -> Trial:
    """Build the trial of an algorithm; raises the errors of `make` and of the algorithm's `init`."""
    rng, size = np.random.default_rng(seed), np.asarray(data.size)
    present = rng.permutation(np.flatnonzero(size))
    ids = present[: min(clients, len(present))].astype(np.int32)
    slots, nobody = len(ids), np.flatnonzero(size == 0)
    laid_out = {"packed": engines.packed(max(1, slots // 2)), "padded": engines.padded(), "sequential": engines.sequential()}
    choose = not isinstance(make, Algorithm)

    def algorithm_on(engine: str | None, *value: Any) -> Algorithm:
        return make(laid_out[engine] if engine else None, *value) if choose else make

    first = () if values is None else values[:1]
    built = algorithm_on("packed", *first)
    keys, traced = jax.random.split(jax.random.key(seed), 2), []
    state = jax.jit(built.init)(params, keys[0])
    table = np.stack([ids, np.roll(ids, 1)])

    @functools.cache
    def step(engine, slots_):
        algorithm = built if engine in (None, "packed") else algorithm_on(engine, *first)

        @jax.jit
        def round(data, state, ids, weight):
            if engine in (None, "packed") and slots_ == slots:
                traced.append(0)
            return algorithm.round(state, data, cohort_of(algorithm, round_key(state), data.size, state.round, ids, weight))

        return functools.partial(round, data)

    def experiment(data, params, key, value):
        algorithm = built if values is None else algorithm_on("packed", value)
        sampler = lambda key, sizes, round: cohort_of(algorithm, key, sizes, round, jnp.asarray(table)[round % 2])  # noqa: E731
        return advance(algorithm, data, algorithm.init(params, key), sampler, rounds=2)

    @functools.cache
    def run():
        lowered = jax.jit(experiment).lower(data, params, keys[0], _values(values)[0])
        program = lowered.compile()
        return functools.partial(program, data, params), "callback" in lowered.as_text()

    @functools.cache
    def runs():
        return functools.partial(jax.jit(jax.vmap(experiment, (None, None, 0, 0))), data, params)

    names = tuple(laid_out) if choose else ()
    return Trial(built, data, state, ids, int(nobody[0]) if len(nobody) else None, step, names, traced, run, runs, keys, _values(values))


def cohort_of(algorithm: Algorithm, key: Key, sizes: Any, round: Any, ids: Any, weight: Any = None) -> Client:
    """Make the cohort of the clients `ids`; for an asynchronous algorithm with ages by id, and in the round of one tier."""
    drawn, how = sampling.cohort(key, sizes, ids, weight), algorithm.asynchrony
    if how is None:
        return drawn
    tier = jnp.full(drawn.id.shape, jnp.asarray(round, jnp.int32) % max(1, how.tiers))
    return drawn._replace(age=drawn.id % min(how.window, 3), tier=tier)


def _values(values):
    """Return the two values of the hyperparameter as a float array; zeros for None."""
    return jnp.zeros(2) if values is None else jnp.asarray(values, jnp.result_type(float))


def named(arrays: Tree) -> dict[str, np.ndarray]:
    """Return the leaves of `arrays` by their paths, random keys as words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree.words(arrays))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def agree(pairs: Iterable[tuple[Tree, Tree]]) -> Verdict:
    """Judge whether `pairs` of (actual, expected) trees are equal: floats up to rounding, other leaves exactly."""
    worst, where = 0.0, ""
    for actual, expected in pairs:
        if jax.tree.structure(actual) != jax.tree.structure(expected):  # type: ignore[operator]
            return "no", f"{jax.tree.structure(actual)} instead of {jax.tree.structure(expected)}"
        likes = named(expected)
        for name, x in named(actual).items():
            gap = _gap(x, likes[name])
            worst, where = max((worst, where), (gap, name))
    return ("yes" if worst <= 1 else "no"), f"off by {worst:.1g} of what rounding may do{f' in {where}' if worst > 1 else ''}"


def _gap(x: np.ndarray, y: np.ndarray) -> float:
    """Return the largest difference of two arrays, in units of the allowed rounding; infinity for another shape or dtype."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return np.inf
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return 0.0 if np.array_equal(x, y) else np.inf
    tolerance = TOLERANCES[x.dtype.itemsize]
    x, y = x.astype(float), y.astype(float)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if not np.isfinite(x[~same]).all() or not np.isfinite(y[~same]).all():
        return np.inf
    scale = np.max(np.abs(y[np.isfinite(y)]), initial=tolerance)
    return float(np.max(np.abs(x - y)[~same], initial=0) / (tolerance * scale))
