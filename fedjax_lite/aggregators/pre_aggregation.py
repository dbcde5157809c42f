"""Pre-aggregators: bring the messages closer together before an inner aggregator gets them.

A message that is not finite is passed on as NaN: the inner aggregator drops and counts the message, and lowers its f.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_lite import forms, tree
from fedjax_lite.aggregators.gram import lowest, squared_distances
from fedjax_lite.aggregators.lift import transformed
from fedjax_lite.aggregators.non_finite import screen
from fedjax_lite.aggregators.robust_rule import Needs, check_slots
from fedjax_lite.aggregators.sums import averages, squared_norms
from fedjax_lite.base import NO_LIMIT, Aggregator, Client, Number, Tree
from fedjax_lite.refuse import whole
from fedjax_lite.streams import client_keys


def nnm(inner: Aggregator, num_byzantine: Number) -> Aggregator:
    """Each message is replaced by the mean of its nearest neighbours, itself included (nearest neighbour mixing).

    V_i <- (1/(n-f)) sum of the n-f messages nearest to V_i; of equally distant messages those in the lowest slots. Behind `nnm`
    most rules are optimal where clients differ. Needs n >= 2f+1. O(n^2 d).

    Args:
        inner: the aggregator behind it.
        num_byzantine: f, how many Byzantine clients to withstand; the inner rule's is the same.

    Raises:
        ValueError: for a negative or fractional f; while tracing, for a cohort too small for f.

    Source: Allouah et al. 2023, "Fixing by mixing", algorithm 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = nnm(fl.aggregators.median(), num_byzantine=1)
    >>> state = aggregator.init(stack[0])
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(0))[0])
    1.5
    """
    whole("nnm", "num_byzantine", num_byzantine)

    def mixed(messages, cohort, lost, n, f):
        present = cohort.weight > 0
        distances = squared_distances(messages, present)
        return lambda message: message, (averages(lowest(distances, n - f) & present[None, :], messages, present, lost),)

    return _pre_aggregator("nnm", mixed, inner, num_byzantine)


def arc(inner: Aggregator, num_byzantine: Number) -> Aggregator:
    """The longest messages are cut to the length of the next (adaptive robust clipping).

    The k = floor(2f(n-f)/n) messages of largest norm are scaled down to the (k+1)-th largest. Needs n >= 2f+1. O(n d).

    Args:
        inner: the aggregator behind it.
        num_byzantine: f, how many Byzantine clients to withstand; the inner rule's is the same.

    Raises:
        ValueError: for a negative or fractional f; while tracing, for a cohort too small for f.

    Source: Allouah et al. 2025, "Adaptive gradient clipping for robust federated learning", algorithm 2.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 90.0, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = arc(fl.aggregators.mean(), num_byzantine=1)
    >>> state = aggregator.init(stack[0])
    >>> round(float(aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(0))[0]), 3)
    1.667
    """
    whole("arc", "num_byzantine", num_byzantine)

    def cut(messages, cohort, lost, n, f):
        squares = squared_norms(messages, cohort.weight > 0)
        # A length has no slope at 0, so lengths stay above 0.
        norms = jnp.sqrt(jnp.maximum(squares, jnp.finfo(squares.dtype).tiny))
        longest_first = -jnp.sort(-jnp.where(cohort.weight > 0, norms, 0))
        most = longest_first[jnp.clip(2 * f * (n - f) // jnp.maximum(n, 1), 0, len(norms) - 1)]
        factor = jnp.minimum(1, most / norms)

        def scaled(message, here, factor, lost):
            return jax.tree.map(lambda x: jnp.where(lost, jnp.nan, jnp.where(here, x, 0) * factor.astype(x.dtype)), message)

        return scaled, (messages, cohort.weight > 0, factor, lost)

    return _pre_aggregator("arc", cut, inner, num_byzantine)


def bucketing(inner: Aggregator, size: int) -> Aggregator:
    """The inner aggregator gets the mean messages of random buckets of clients.

    Clients in random order, `size` at a time, the last bucket perhaps fewer: ceil(n/size) means. f Byzantine clients spoil at most f
    buckets, so the inner rule's f stays, and it must bear f of ceil(n/size): size <= n/(2f). O(n d).

    Args:
        inner: the aggregator behind it. To it a bucket is a client: id the bucket's number, weight 1, as many examples as its members
            hold together.
        size: s >= 1, clients a bucket.

    Raises:
        ValueError: for a size that is no whole number of at least 1.

    Source: Karimireddy, He and Jaggi 2022, "Byzantine-robust learning on heterogeneous datasets via bucketing", algorithm 1.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.arange(6.0), fl.sampling.cohort(jax.random.key(0), jnp.ones(6, int), jnp.arange(6))
    >>> aggregator = bucketing(fl.aggregators.mean(), size=2)
    >>> state = aggregator.init(stack[0])
    >>> float(aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(0))[0])
    2.5
    """
    whole("bucketing", "size", size, least=1)

    def bucketed(messages, cohort, state, key):
        present = cohort.weight > 0
        messages, kept, _ = screen(messages, cohort, "drop")
        draws = jax.vmap(jax.random.bits)(client_keys(key, cohort.id))
        rank = jnp.argsort(jnp.lexsort((draws, ~present)))
        buckets = jnp.arange(-(-len(rank) // int(size)))
        members = (rank[None, :] // int(size) == buckets[:, None]) & present[None, :]
        count = jnp.sum(members, axis=1)
        lost = jnp.any(members & ~(kept.weight > 0)[None, :], axis=1)
        means = averages(members, messages, kept.weight > 0, lost)
        sizes = jnp.sum(jnp.where(members, cohort.size, 0), axis=1, dtype=cohort.size.dtype)
        weight = (count > 0).astype(cohort.weight.dtype)
        clients = Client(buckets, client_keys(key, buckets), sizes, jnp.full(buckets.shape, NO_LIMIT), weight)
        return means, clients, state

    return transformed(bucketed, inner)


def _pre_aggregator(name: str, change, inner: Aggregator, num_byzantine: Number) -> Aggregator:
    """Make an aggregator that changes the finite messages and passes them to `inner`.

    Args:
        change: `(messages, cohort, lost, n, f) -> fn, stacks`: `fn(*row)` of the stacks' rows is a slot's message, NaN where `lost`,
            bool `[clients]`, marks a message that is not finite.
    """
    plain = transformed(lambda messages, cohort, state, key: (messages, cohort, state), inner)

    def finish(part, state, key):
        messages, cohort = part
        check_slots(name, Needs(2, 1), num_byzantine, len(cohort.weight))
        messages, kept, dropped = screen(messages, cohort, "drop")
        f = jnp.maximum(jnp.asarray(num_byzantine).astype(jnp.int32) - dropped.astype(jnp.int32), 0)
        n = jnp.sum(kept.weight > 0, dtype=jnp.int32)
        lost = (cohort.weight > 0) & ~(kept.weight > 0)
        fn, stacks = change(messages, kept, lost, n, f)
        transform_state, inner_state = state
        part = _collected(inner, fn, stacks, cohort, inner_state)
        aggregate, inner_state, metrics = inner.finish(part, inner_state, key)
        enough = n >= Needs(2, 1).least(f)
        too_few = jnp.maximum(metrics.get("too_few", 0), 1.0 - enough)
        metrics = metrics | {"non_finite": dropped, "too_few": too_few}
        return tree.zero_where_not(enough, aggregate), (transform_state, inner_state), metrics

    return plain._replace(finish=finish)


def _collected(inner: Aggregator, fn: Callable[..., Tree], stacks: tuple[Tree, ...], cohort: Client, state: Tree) -> Tree:
    """Call `inner.collect` on the messages `fn(*row)`; a CPU sums additive parts row by row, to save a second stack."""

    def at_once(stacks, cohort, state):
        return inner.collect(jax.vmap(fn)(*stacks), cohort, state)

    def by_rows(stacks, cohort, state):
        def collect_row(row, client):
            message, alone = jax.tree.map(lambda x: x[None], (fn(*row), client))
            return inner.collect(message, alone, state)

        nothing = tree.zeros(jax.eval_shape(lambda *stacks: collect_row(*tree.take(stacks, jnp.int32(0))), stacks, cohort))
        return jax.lax.scan(lambda parts, row: (jax.tree.map(jnp.add, parts, collect_row(*row)), None), nothing, (stacks, cohort))[0]

    if not inner.additive:
        return at_once(stacks, cohort, state)
    return forms.by_platform(stacks, cohort, state, cpu=by_rows, accelerator=at_once)
