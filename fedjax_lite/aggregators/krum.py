"""Krum, Multi-Krum and Bulyan: the messages that lie closest to their neighbours."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedjax_lite.aggregators.coordinatewise import mean_around_median
from fedjax_lite.aggregators.gram import Pairs, Scores, squared_distances, sum_of_nearest
from fedjax_lite.aggregators.robust_rule import Needs, from_rule
from fedjax_lite.aggregators.sums import average
from fedjax_lite.base import NO_LIMIT, Aggregator, Number
from fedjax_lite.refuse import whole

Neighbors = Literal["blanchard", "byzfl"]


def krum(num_byzantine: Number, neighbors: Neighbors = "blanchard", non_finite: str = "drop") -> Aggregator:
    """The one message with the least sum of squared distances to its nearest neighbours.

    R(V) = V_i with the least score(i) = sum over the n-f-2 messages V_j nearest to V_i, j != i, of ||V_i - V_j||^2; of equal
    scores that of the lowest id. Needs n >= 2f+3. O(n^2 d).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        neighbors: "blanchard" counts n-f-2 neighbours as the paper does; "byzfl" n-f-1 as the package byzfl does, and needs
            n >= 2f+1 only.
        non_finite: what to do with messages that are not finite: "drop" (f is then one less), "zero" or "propagate".

    Raises:
        ValueError: for a negative or fractional f, unknown neighbours or policy; while tracing, for a cohort too small for f.

    Source: Blanchard et al. 2017, "Machine learning with adversaries", section 4.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 9.0, 1.1, 0.8, 1.4]), fl.sampling.cohort(jax.random.key(0), jnp.ones(5, int), jnp.arange(5))
    >>> aggregator = krum(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> round(float(compiled(stack)), 3)
    1.0
    """
    return _selection("krum", num_byzantine, 1, neighbors, non_finite)


def multi_krum(
    num_byzantine: Number, num_selected: Number | None = None, neighbors: Neighbors = "blanchard", non_finite: str = "drop"
) -> Aggregator:
    """The mean of the m messages with Krum's lowest scores.

    (1/m) sum of the V_i with the m lowest scores (see `krum`). Needs n >= 2f+3. O(n^2 d).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        num_selected: m; by default n-f of the clients present. The paper's guarantee is for m <= n-f-2.
        neighbors: "blanchard" (n-f-2 neighbours) or "byzfl" (n-f-1, n >= 2f+1).
        non_finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: as `krum` does, and for m < 1; while tracing, for m > n-f.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 9.0, 1.5, 0.5, 2.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(5, int), jnp.arange(5))
    >>> aggregator = fl.aggregators.multi_krum(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> round(float(compiled(stack)), 3)
    1.25

    Source: Blanchard et al. 2017, "Machine learning with adversaries", section 4.
    """
    return _selection("multi_krum", num_byzantine, num_selected, neighbors, non_finite)


def bulyan(num_byzantine: Number, non_finite: str = "drop") -> Aggregator:
    """Krum's winners one after another, then coordinate by coordinate the mean around their median.

    theta = n-2f times: the Krum winner among the r messages left (the r-f-2 nearest neighbours, but at least 1) is selected and
    taken out. Then, per coordinate, the mean of the beta = theta-2f selected values closest to the median of the selected.
    Needs n >= 4f+3. O(n^2 d) and theta times O(n^2 log n).

    Args:
        num_byzantine: f, how many Byzantine clients to withstand.
        non_finite: "drop", "zero" or "propagate".

    Raises:
        ValueError: as `krum` does.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.arange(7.0).at[6].set(90.0), fl.sampling.cohort(jax.random.key(0), jnp.ones(7, int), jnp.arange(7))
    >>> aggregator = fl.aggregators.bulyan(num_byzantine=1)
    >>> compiled = jax.jit(lambda stack: aggregator.finish(aggregator.collect(stack, cohort, ()), (), None)[0])
    >>> round(float(compiled(stack)), 3)
    2.0

    Source: El Mhamdi et al. 2018, "The hidden vulnerability of distributed learning in Byzantium", section 4.
    """

    def rule(messages, cohort, n, f):
        present = cohort.weight > 0
        distances = _between(messages, present)

        def select(step, left):
            scores = _scores(distances, left, jnp.maximum(n - step - f - 2, 1))
            return left.at[_winner(scores, cohort.id)].set(False)

        left = jax.lax.fori_loop(0, n - 2 * f, select, present)
        return mean_around_median(messages, present & ~left, n - 4 * f)

    return from_rule("bulyan", rule, num_byzantine, Needs(4, 3), non_finite)


def _selection(name, num_byzantine, num_selected, neighbors, non_finite) -> Aggregator:
    """Make the aggregator `name`: `krum`, or the mean of the `num_selected` (None: n - f) messages with the lowest scores."""
    if neighbors not in ("blanchard", "byzfl"):
        raise ValueError(f'{name}: neighbors must be "blanchard" or "byzfl", got {neighbors!r}')
    fewer = 2 if neighbors == "blanchard" else 1
    if num_selected is not None:
        whole(name, "num_selected", num_selected, least=1)

    def rule(messages, cohort, n, f):
        most = cohort.weight.shape[0] - num_byzantine
        if not isinstance(num_selected, jax.Array | None) and not isinstance(most, jax.Array) and num_selected > most:
            raise ValueError(
                f"{name}: num_selected={num_selected} is more than n-f = {most} with num_byzantine={num_byzantine} in a cohort of "
                f"{cohort.weight.shape[0]}: lower it, or leave it out for n-f"
            )
        present = cohort.weight > 0
        scores = _scores(_between(messages, present), present, n - f - fewer)
        if name == "krum":
            return jax.tree.map(lambda x: x[_winner(scores, cohort.id)], messages)
        count = n - f if num_selected is None else jnp.minimum(num_selected, n - f)
        return average((jnp.argsort(jnp.lexsort((cohort.id, scores))) < count) & present, messages)

    needs = Needs(2, 3) if neighbors == "blanchard" else Needs(2, 1)
    return from_rule(name, rule, num_byzantine, needs, non_finite)


def _between(messages, present: Bool[Array, " clients"]) -> Pairs:
    """Return squared distances of all pairs, with infinity on the diagonal: a message is not its own neighbour."""
    distances = squared_distances(messages, present)
    return jnp.where(jnp.eye(distances.shape[0], dtype=bool), jnp.inf, distances)


def _winner(scores: Scores, ids: Int[Array, " clients"]) -> Int[Array, ""]:
    """Return the slot of the lowest score, NaN counting as lowest; of equal scores the slot of the lowest id.

    With one neighbour a message, as in Bulyan's last step, the two nearest messages have equal scores: their common distance.
    """
    least = (scores == jnp.min(scores)) | jnp.isnan(scores)
    return jnp.argmin(jnp.where(least, ids, NO_LIMIT))


def _scores(distances: Pairs, left: Bool[Array, " clients"], count: Int[Array, ""]) -> Scores:
    """Sum each remaining message's squared distances to its `count` nearest remaining neighbours; infinity for messages not `left`."""
    return jnp.where(left, sum_of_nearest(jnp.where(left[None, :], distances, jnp.inf), count), jnp.inf)
