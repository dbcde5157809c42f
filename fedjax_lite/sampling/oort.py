"""Oort: clients of high utility, which are those with large losses and short rounds, and some that nobody knows yet."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite.base import Client, Key, Number, Whole
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count, a_share, positive
from fedjax_lite.sampling.losses import client_losses, losses_by
from fedjax_lite.sampling.participation import Remembering, cohort
from fedjax_lite.streams import HIGH_STREAM, sample_key

__all__ = ["Oort", "oort", "slowed"]

FIRST, DECAY, LEAST = 0.9, 0.98, 0.3  # the part of a cohort that explores, at first, from round to round, at last
CLIPPED, CUT_OFF, UNCERTAIN = 0.9, 0.05, 0.1  # the quantile of utilities that clips, the part of the cut-off score, of the bonus
WINDOW = 5  # new clients are drawn among the best of so many times their number
FLAT, SHARP = 0.1, 5.0  # changes of utility that the pacer takes for none, and for a sharp one


class Oort(NamedTuple):
    """What the sampler remembers."""

    utility: Float[Array, " population"]  # n_k sqrt(mean loss^2) when it last took part
    last: Int[Array, " population"]  # the round of it, counted from 1; 0: never
    quantile: Float[Array, ""]  # of the durations, in percent: rounds should take no longer than this client
    windows: Float[Array, " 2"]  # utilities of those chosen for it, summed over the pacer's last whole window and over this one
    round: Int[Array, ""]  # the round under way, counted from 1
    exploited: Int[Array, ""]  # slots of it, from the first on, that were chosen for their utility


def oort(
    loss_fn: LossFn,
    clients: Whole,
    durations: Sequence[Number] | Any = None,
    penalty: Number = 2.0,
    quantile: Number = 0.3,
    pacer_step: Whole = 20,
    pacer_delta: Number = 0.05,
) -> Remembering:
    r"""Clients of high utility: large losses on many examples, and short rounds; and a part of each cohort that is new.

    The utility of client k is U_k = n_k sqrt(mean loss^2) of the global model it was last sent, on its examples. Its score in round r,
    counted from 1, is min(U_k, the 0.9 quantile) scaled by the least and the largest, plus sqrt(0.1 ln r / last round), times
    (T / t_k)^penalty if its duration t_k is above T. A part max(0.9 * 0.98^r, 0.3) of the cohort explores: clients that never took part,
    drawn by n_k (T / t_k)^penalty among the best five times as many. The others are drawn by score among those with at least 0.05 of the
    score where the best end. The choice is biased on purpose; no accountant covers it, and private aggregators are refused.

    Args:
        loss_fn: as given to client work.
        clients: of a round.
        durations: t_k, seconds a round takes each client, `[population]`; None: they do not matter.
        penalty: the exponent of T / t_k.
        quantile: T is this quantile of the durations at first; 1: no limit.
        pacer_step, pacer_delta: every so many rounds T's quantile goes up by delta if the utility of those chosen for it changed by
            less than a tenth, and down if it changed by more than five times.

    Raises:
        ValueError: for numbers out of range, durations that are not positive or of another number than there are clients.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.full(2, x)} for x in (1.0, 2.0, 9.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=0.1, population=3)
    >>> sampler = fl.sampling.oort(loss_fn, clients=2)
    >>> state, history = fl.simulate(algorithm, data, jnp.zeros(()), sampler, rounds=4, key=jax.random.key(0))
    >>> history["clients"].tolist()
    [2.0, 2.0, 2.0, 2.0]

    Source: Lai et al. 2021, "Oort: efficient federated learning via guided participant selection", with the released code's numbers. There
    losses are those of training; here they are the global model's, before it.
    """
    loss_fn, clients = losses_by("oort", loss_fn), a_count("oort", "clients", clients)
    step = a_count("oort", "pacer_step", pacer_step)
    for name, value in (("penalty", penalty), ("pacer_delta", pacer_delta)):
        positive("oort", name, value, or_zero=True)
    quantile = a_share("oort", "quantile", quantile, "(0, 1]")
    seconds = None if durations is None else _durations(durations)

    def init(sizes):
        zeros = jnp.zeros(sizes.shape)
        return Oort(zeros, jnp.zeros(sizes.shape, jnp.int32), jnp.asarray(100.0 * quantile), jnp.zeros(2), jnp.int32(0), jnp.int32(0))

    def sample(key, sizes, round, memory, demand):
        del demand
        population = sizes.shape[0]
        if clients > population:
            raise ValueError(f"oort: clients={clients} is more than the population of {population}: lower it")
        if seconds is not None and len(seconds) != population:
            raise ValueError(f"oort: durations has {len(seconds)} numbers for {population} clients: give one for each")
        slow = jnp.ones(population) if seconds is None else slowed(jnp.asarray(seconds), _limit(seconds, memory.quantile), penalty)
        ids, exploited = _chosen(key, sizes, round + 1, memory, slow, clients)
        return cohort(key, sizes, ids, sizes[ids] > 0), memory._replace(round=jnp.int32(round + 1), exploited=exploited)

    def look(params, data, cohort, memory):
        losses, cohort = client_losses(loss_fn, params, data, cohort)
        return cohort, _remember(memory, cohort, cohort.size * jnp.sqrt(losses.mean_square), step, 100.0 * pacer_delta)

    return Remembering(init, sample, look)


def slowed(durations: Array, limit: Any, penalty: Any) -> Array:
    """Return (T / t)^penalty where a duration t is above the limit T, else 1."""
    return jnp.where(durations > limit, (limit / durations) ** penalty, 1.0)


def _durations(given: Any) -> Float[np.ndarray, " population"]:
    """Return durations as an array; refuse what is not positive."""
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError, jax.errors.TracerArrayConversionError):
        found = np.zeros(())
    if found.ndim != 1 or not (np.isfinite(found) & (found > 0)).all():
        raise ValueError(f"oort: durations must be positive seconds, one for each client, got {str(given)[:80]}")
    return found


def _limit(durations: Float[np.ndarray, " population"], percent: Array) -> Array:
    """Return the quantile of the durations, and infinity for 100 percent."""
    place = jnp.minimum((len(durations) * percent / 100).astype(jnp.int32), len(durations) - 1)
    return jnp.where(percent >= 100, jnp.inf, jnp.asarray(np.sort(durations))[place])


def _scores(memory: Oort, known: Bool[Array, " population"], now: Any, slow: Array) -> Float[Array, " population"]:
    """Return the scores of known clients, 0 of others."""
    number = jnp.sum(known, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(known, memory.utility, jnp.inf))
    clip = ordered[jnp.minimum((number * CLIPPED).astype(jnp.int32), jnp.maximum(number - 1, 0))]
    least, most = 0.999 * ordered[0], ordered[jnp.maximum(number - 1, 0)]
    scaled = (jnp.minimum(memory.utility, clip) - least) / jnp.maximum(most - least, 1e-4)
    bonus = jnp.sqrt(UNCERTAIN * jnp.log(1.0 * now) / jnp.maximum(memory.last, 1))
    return jnp.where(known, (scaled + bonus) * slow, 0)


def _chosen(key: Key, sizes: Array, now: Any, memory: Oort, slow: Array, clients: int) -> tuple[Int[Array, " clients"], Int[Array, ""]]:
    """Choose a round's clients: first those for their utility, then new ones, then others; also return how many the first are."""
    has = sizes > 0
    known, new = has & (memory.last > 0), has & (memory.last == 0)
    scores = _scores(memory, known, now, slow)
    explore = jnp.where(jnp.any(new), jnp.maximum(FIRST * DECAY**now, LEAST), 0.0)
    number = jnp.minimum((clients * (1 - explore) + 1e-6).astype(jnp.int32), jnp.sum(known, dtype=jnp.int32))
    ordered = -jnp.sort(-jnp.where(known, scores, -jnp.inf))
    cut_off = CUT_OFF * ordered[jnp.minimum(number, jnp.maximum(jnp.sum(known) - 1, 0))]
    best = _first(_draw(key, 0, known & (scores >= cut_off), scores), number)
    fresh = sizes * slow
    among = _first(jnp.where(new, fresh, -jnp.inf), WINDOW * (clients - number))
    explored = _first(_draw(key, 1, among, fresh), jnp.minimum(clients - number, jnp.sum(new, dtype=jnp.int32)))
    others = _draw(key, 2, has & ~best & ~explored, jnp.ones(sizes.shape))
    rank = jnp.where(best, 0, jnp.where(explored, 1, jnp.where(has, 2, 3)))
    order = jnp.lexsort((-others, rank))
    return order[:clients].astype(jnp.int32), number


def _draw(key: Key, stream: int, among: Bool[Array, " population"], weight: Array) -> Float[Array, " population"]:
    """Return numbers whose largest are draws without replacement by weight; -inf for clients that are not among them."""
    noise = jax.random.gumbel(jax.random.fold_in(sample_key(key), np.uint32(HIGH_STREAM + stream)), among.shape)
    return jnp.where(among, jnp.log(jnp.maximum(weight, 1e-20)) + noise, -jnp.inf)


def _first(score: Float[Array, " population"], number: Any) -> Bool[Array, " population"]:
    """Mark the clients with the largest scores; none with -inf."""
    rank = jnp.argsort(jnp.argsort(-score, stable=True), stable=True)
    return (rank < number) & (score > -jnp.inf)


def _remember(memory: Oort, cohort: Client, utility: Array, step: int, delta: Any) -> Oort:
    """Return the memory after a round's utilities, and its pacer."""
    there = cohort.weight > 0
    utility = jnp.where(jnp.isfinite(utility), utility, 0)
    place = jnp.where(there, cohort.id, len(memory.last))
    counted = there & (jnp.arange(len(cohort.id)) < memory.exploited)
    mean = jnp.sum(jnp.where(counted, utility, 0)) / jnp.maximum(jnp.sum(counted), 1)
    before, now = memory.windows[0], memory.windows[1] + mean
    ends, change = memory.round % step == 0, jnp.abs(now - before)
    paced = jnp.where(change <= FLAT * before, jnp.minimum(memory.quantile + delta, 100.0), memory.quantile)
    paced = jnp.where((change > FLAT * before) & (change >= SHARP * before), jnp.maximum(memory.quantile - delta, delta), paced)
    return memory._replace(
        utility=memory.utility.at[place].set(utility, mode="drop"),
        last=memory.last.at[place].set(memory.round, mode="drop"),
        quantile=jnp.where(ends & (memory.round >= 2 * step), paced, memory.quantile),
        windows=jnp.where(ends, jnp.stack([now, jnp.zeros(())]), jnp.stack([before, now])),
    )
