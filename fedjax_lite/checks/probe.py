"""The probe that each check of a rule uses: messages, cohorts, a compiled call; and the comparison of results."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite import sampling, tree
from fedjax_lite.base import Aggregator, Client, Key, Tree
from fedjax_lite.checks.answers import Verdict

# By bytes of the dtype, the differences that count as rounding: a share of
RELATIVE = {4: 1e-4, 8: 1e-10}  # the largest coordinate of the expected result; sums in another order are 100 times closer
ABSOLUTE = {4: 1e-6, 8: 1e-12}  # the largest coordinate of a message: rounding that is left where messages cancel


class Probe(NamedTuple):
    """A rule with the inputs of its checks. Messages are rows of a matrix `[clients, coordinates]` until `stack` shapes them."""

    rule: Aggregator
    eager: Callable  # stack, cohort, state, key -> aggregate, state, metrics
    call: Callable  # `eager`, compiled if the rule compiles
    stepwise: Callable[[], list[np.ndarray]]  # -> the outcome of one slow call, operation by operation; cached for two checks
    message: Tree  # zeros, float32; float64 under `jax.enable_x64`
    messages: np.ndarray  # [clients, coordinates], around a common mean
    equal: Client  # a cohort of clients with the same sizes and weights
    varied: Client  # the same clients with different sizes and weights
    state: Tree  # the rule's first state
    key: Key

    def stack(self, rows: Any, dtype: Any = None) -> Tree:
        """Shape a matrix `rows`, `[clients, coordinates]`, into a stack of messages."""
        dtype = self.messages.dtype if dtype is None else dtype
        leaves, structure = jax.tree.flatten(self.message)
        columns = np.split(rows, np.cumsum([x.size for x in leaves])[:-1], axis=1)
        shaped = [jnp.asarray(c.reshape(len(rows), *x.shape), dtype) for c, x in zip(columns, leaves)]
        return jax.tree.unflatten(structure, shaped)

    def compiled(self, fn: Callable) -> Callable:
        """Compile `fn`, a function of the rule, if the rule compiles."""
        return fn if self.call is self.eager else jax.jit(fn)

    def outcome(self, rows: Any, cohort: Client) -> list[np.ndarray]:
        """Return the aggregate and the next state, each a float64 vector."""
        return vectors(self.call(self.stack(rows), cohort, self.state, self.key))

    def result(self, rows: Any, cohort: Client | None = None, key: Key = None, dtype: Any = None) -> np.ndarray:
        """Return the aggregate of `rows`, from the rule's first state, as a float64 vector."""
        cohort, key = self.equal if cohort is None else cohort, self.key if key is None else key
        return flat(self.call(self.stack(rows, dtype), cohort, self.state, key)[0])


def probe(rule: Aggregator, clients: int, message: Tree, seed: int) -> Probe:
    """Build the probe of a rule; raises the errors of the rule's `init` and of its first call."""
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
    except Exception:  # the row "jit equals eager" will report this error; other checks go on uncompiled
        built = built._replace(call=eager)
        built.result(built.messages)
    return built


def _once(rule: Aggregator) -> Callable:
    """Make a function that collects a whole cohort and finishes, and refuses a result that is no triple."""

    def once(stack, cohort, state, key):
        result = rule.finish(rule.collect(stack, cohort, state), state, key)
        if not isinstance(result, tuple) or len(result) != 3:
            shown = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise TypeError(f"finish must return (aggregate, state, metrics), it returned {shown}")
        return result

    return once


def flat(values: Tree) -> np.ndarray:
    """Concatenate all leaves to a float64 vector."""
    return np.concatenate([np.asarray(x).astype(np.float64).reshape(-1) for x in jax.tree.leaves(values)] or [np.zeros(0)])


def vectors(called: tuple[Tree, Tree, Any]) -> list[np.ndarray]:
    """Return aggregate and state of a call, each a float64 vector; in a state NaN and infinity count as 0."""
    aggregate, state, _ = called
    return [flat(aggregate), np.nan_to_num(flat(tree.words(state)), posinf=0, neginf=0)]


def take(stack: Tree, index: Any) -> Tree:
    """Take the rows `index` of a stack, on the host: a gather would be compiled for each number of rows."""

    def rows(x):
        return x[index] if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.asarray(np.asarray(x)[index])

    return jax.tree.map(rows, stack)


def compare(built: Probe, pairs: Iterable[tuple[np.ndarray, np.ndarray]], relative: float | None = None) -> Verdict:
    """Judge whether `pairs` of (actual, expected) vectors are equal up to rounding."""
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
    """Return the largest magnitude in `x`; infinity if a number is not finite."""
    return float(np.max(np.abs(x), initial=0)) if np.isfinite(x).all() else np.inf
