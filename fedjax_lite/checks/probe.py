"""What every check uses: messages, cohorts, one compiled call of the rule, and how far two results are apart."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite import sampling, tree
from fedjax_lite.base import Aggregator, Client, Key, Tree
from fedjax_lite.checks.answers import Verdict

# By bytes of the dtype, what counts as the same, relative to
RELATIVE = {4: 1e-4, 8: 1e-10}  # the largest coordinate of the result expected: sums in another order are 100 times closer
ABSOLUTE = {4: 1e-6, 8: 1e-12}  # the largest coordinate of a message: what is left where messages cancel


class Probe(NamedTuple):
    """A rule with what it is tried on. Messages are rows of a matrix `[clients, coordinates]` until `stack` shapes them."""

    rule: Aggregator
    eager: Callable  # stack, cohort, state, key -> aggregate, state, metrics
    call: Callable  # the same, compiled if the rule can be
    stepwise: Callable[[], list[np.ndarray]]  # the outcome of one call run operation by operation: it takes long, and two checks ask for it
    message: Tree  # zeros, float32; in double precision (`jax.enable_x64`) float64
    messages: np.ndarray  # [clients, coordinates], around a common mean
    equal: Client  # a cohort whose clients count the same
    varied: Client  # the same clients with different sizes and weights
    state: Tree  # the rule's first
    key: Key

    def stack(self, rows: Any, dtype: Any = None) -> Tree:
        """A matrix `[clients, coordinates]` as a stack of messages."""
        dtype = self.messages.dtype if dtype is None else dtype
        leaves, structure = jax.tree.flatten(self.message)
        columns = np.split(rows, np.cumsum([x.size for x in leaves])[:-1], axis=1)
        shaped = [jnp.asarray(c.reshape(len(rows), *x.shape), dtype) for c, x in zip(columns, leaves)]
        return jax.tree.unflatten(structure, shaped)

    def compiled(self, fn: Callable) -> Callable:
        """Any function of the rule, compiled if the rule can be."""
        return fn if self.call is self.eager else jax.jit(fn)

    def outcome(self, rows: Any, cohort: Client) -> list[np.ndarray]:
        """The aggregate and the state after it, a vector each."""
        return vectors(self.call(self.stack(rows), cohort, self.state, self.key))

    def result(self, rows: Any, cohort: Client | None = None, key: Key = None, dtype: Any = None) -> np.ndarray:
        """The aggregate of these messages as one float64 vector, from the rule's first state."""
        cohort, key = self.equal if cohort is None else cohort, self.key if key is None else key
        return flat(self.call(self.stack(rows, dtype), cohort, self.state, key)[0])


def probe(rule: Aggregator, clients: int, message: Tree, seed: int) -> Probe:
    """Make ready what the checks need; an error of the rule in `init` or in its first call is raised here."""
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float)
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), dtype), message)
    coordinates = sum(x.size for x in jax.tree.leaves(zeros))
    messages = rng.normal(size=coordinates) + rng.normal(size=(clients, coordinates))
    sizes, ids = rng.permutation(clients) + 3, jnp.arange(clients)
    equal = sampling.cohort(jax.random.key(seed), jnp.full(clients, 10, jnp.int32), ids)
    varied = sampling.cohort(jax.random.key(seed), jnp.asarray(sizes, jnp.int32), ids, jnp.asarray(rng.uniform(0.5, 1.5, clients)))
    key, eager = jax.random.key(seed + 1), _once(rule)
    state, messages = rule.init(zeros), messages.astype(dtype)

    @functools.cache
    def stepwise():
        return vectors(eager(built.stack(messages), varied, state, key))

    built = Probe(rule, eager, jax.jit(eager), stepwise, zeros, messages, equal, varied, state, key)
    try:
        built.result(built.messages)
    except Exception:  # whatever it is, it is the row "jit equals eager" that says so; the others go on without
        built = built._replace(call=eager)
        built.result(built.messages)
    return built


def _once(rule: Aggregator) -> Callable:
    def once(stack, cohort, state, key):
        result = rule.finish(rule.collect(stack, cohort, state), state, key)
        if not isinstance(result, tuple) or len(result) != 3:
            shown = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise TypeError(f"finish must return (aggregate, state, metrics), it returned {shown}")
        return result

    return once


def flat(values: Tree) -> np.ndarray:
    """All leaves as one float64 vector."""
    return np.concatenate([np.asarray(x).astype(np.float64).reshape(-1) for x in jax.tree.leaves(values)] or [np.zeros(0)])


def vectors(called: tuple[Tree, Tree, Any]) -> list[np.ndarray]:
    """Aggregate and state of a call, a vector each; what is not finite in a state is nobody's business."""
    aggregate, state, _ = called
    return [flat(aggregate), np.nan_to_num(flat(tree.words(state)), posinf=0, neginf=0)]


def take(stack: Tree, index: Any) -> Tree:
    """Rows of a stack, chosen on the host: a gather would be compiled for each number of them."""

    def rows(x):
        return x[index] if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.asarray(np.asarray(x)[index])

    return jax.tree.map(rows, stack)


def compare(built: Probe, pairs: Iterable[tuple[np.ndarray, np.ndarray]], relative: float | None = None) -> Verdict:
    """Whether each result is the one expected, up to rounding; pairs are (actual, expected)."""
    width, worst, close = built.messages.dtype.itemsize, 0.0, True
    relative = RELATIVE[width] if relative is None else relative
    for actual, expected in pairs:
        if actual.shape != expected.shape:
            return "no", f"{actual.size} coordinates instead of {expected.size}"
        gap = largest(actual - expected)
        if not np.isfinite(gap):
            return "no", "the aggregate is not finite"
        worst = max(worst, gap)
        close &= gap <= relative * largest(expected) + ABSOLUTE[width] * largest(built.messages)
    return "yes" if close else "no", f"largest difference {worst:.1g}"


def largest(x: np.ndarray) -> float:
    """The largest magnitude; infinity if any is not finite."""
    return float(np.max(np.abs(x), initial=0)) if np.isfinite(x).all() else np.inf
