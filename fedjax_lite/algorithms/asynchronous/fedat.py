"""FedAT: clients of like speed run synchronous rounds, and the server mixes the models of these tiers, the slow ones the more."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.asynchronous.pieces import arriving_by_speed, asynchronous, starting_from
from fedjax_lite.algorithms.optimisation.pieces import proximal
from fedjax_lite.base import NO_LIMIT, Aggregator, Algorithm, Client, Info, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.engine.pace import Asynchrony
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count, plain, positive
from fedjax_lite.work import sgd_work
from fedjax_lite.work.terms import in_front


class State(NamedTuple):
    """What the server keeps."""

    params: Tree
    tiers: Tree  # [tiers, ...], w_m, what each tier's last round made
    sent: Tree  # [tiers, ...], the global model that each tier's round now starts from
    rounds: Float[Array, " tiers"]  # T_m


def fedat(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    tiers: int = 5,
    buffer: int = 10,
    mu: Number = 0.0,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedAT: tiers of clients of like speed run rounds of their own, and each round's end is a step of the server.

    Tier m:  y_k^0 = x at its round's start, g <- g_k(y) + mu (y - y_k^0), then `optimizer`;  w_m = y^0 + sum_k p_k (y_k - y^0);
    T_m <- T_m + 1;  x = sum_m (T_{M+1-m} / T) w_m,  T = sum_m T_m.

    p_k = n_k / sum n. Tiers are numbered from the fastest, so that a slow tier weighs what the fast one at the other end has done in
    rounds, and every w_m is x_0 until the tier's first round ends: at first, while slow tiers have made no round, x hardly moves. The
    cohorts come from `fl.clock.arriving`, which also tells whose round it is; a tier of whom nobody can be reached keeps the model that it
    has.

    Args:
        tiers: M, the number of groups, of equal size, into which the clients are sorted by the seconds that a round takes them.
        buffer: how many clients of a tier take part in its round.
        mu: the strength of the proximal term, the paper's lambda; 0: none.
        aggregator: within a tier; `fl.aggregators.weighted_mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, engine: as in `fedavg`.

    Raises:
        ValueError: for tiers or a buffer below 1, a mu below 0, a private aggregator or an uplink that hides the clients' data; in a round,
            for a cohort without tiers.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedat(loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=2, tiers=2, buffer=1)
    >>> table = fl.clock.arrivals(algorithm, data, jnp.zeros(()), fl.clock.given([2.0, 0.8]), rounds=3)
    >>> table.ids[:, 0].tolist(), table.tier.tolist(), table.ages[:, 0].tolist()
    ([0, 0, 1], [0, 0, 1], [0, 0, 2])
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.clock.arriving(table), rounds=3, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # 1/3 of 2 and 2/3 of 4
    3.3333

    Source: Chai et al. 2021, "FedAT: a high-performance and communication-efficient federated learning system with asynchronous tiers",
    section 4; without its compression, for which there is `uplink`.
    """
    tiers = a_count("fedat", "tiers", tiers)
    positive("fedat", "mu", mu, or_zero=True)
    near = optimizer if isinstance(plain(mu), int | float) and mu == 0 else in_front(proximal(mu), optimizer)
    algorithm = federate(
        starting_from(_of_its_tier, sgd_work(loss_fn, near, learning_rate=learning_rate)),
        arriving_by_speed("fedat", aggregator, weighted_mean()),
        _of_tiers(tiers),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
    return asynchronous("fedat", algorithm, Asynchrony(buffer, int(NO_LIMIT), tiers=tiers))


def _of_its_tier(sent: Tree, client: Client) -> Tree:
    """Find the model that a client's tier started from."""
    return tree.take(sent, jnp.int32(0) if client.tier is None else client.tier)


def _of_tiers(tiers: int) -> Server:
    """Make the server x = sum_m (T_{M+1-m} / T) w_m."""

    def init(params: Tree) -> State:
        stack = jax.tree.map(lambda x: jnp.broadcast_to(x, (tiers, *x.shape)), params)
        return State(params, stack, stack, jnp.zeros(tiers))

    def update(aggregate: Tree, state: State, info: Info) -> State:
        if info.cohort is None or info.cohort.tier is None:
            raise ValueError("fedat: whose round it is is hidden under an uplink that hides the clients' data: take fedbuff")
        m = jnp.max(jnp.where(info.cohort.weight > 0, info.cohort.tier, 0))
        begun, last = tree.take((state.sent, state.tiers), m)
        made = jax.tree.map(lambda x, change: (x + change.astype(x.dtype)).astype(x.dtype), begun, aggregate)
        made = tree.where(jnp.asarray(info.clients) > 0, made, last)  # of a round whose uploads are not finite nothing is left
        models = jax.tree.map(lambda stack, x: stack.at[m].set(x), state.tiers, made)
        rounds = state.rounds.at[m].add(1)
        share = rounds[::-1] / jnp.sum(rounds)
        params = jax.tree.map(lambda stack: jnp.tensordot(share.astype(stack.dtype), stack, 1, precision="highest"), models)
        return State(params, models, jax.tree.map(lambda stack, x: stack.at[m].set(x), state.sent, params), rounds)

    return Server(init, lambda state: Shared(state.params, public=state.sent), update)
