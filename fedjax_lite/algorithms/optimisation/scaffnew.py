"""Scaffnew: gradient steps with control variates, of which only some, the same for all clients, end in an average."""

from typing import Any, NamedTuple

import jax
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting, of_everyone
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_share, positive
from fedjax_lite.work import gradient_term, sgd_work
from fedjax_lite.work.terms import in_front


class Own(NamedTuple):
    """What a client keeps."""

    shifted: Tree  # z_k = y_k - (eta / p) h_k, where the last round ended


def scaffnew(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any,
    p: Number | None = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Scaffnew (ProxSkip): after every step of all clients a common coin decides, with probability p, whether they average.

    y_k <- y_k - eta (g_k(y_k) - h_k);  after heads x = mean_k (y_k - (eta / p) h_k),  h_k <- h_k + (p / eta) (x - y_k),  y_k = x.

    A round is the steps up to heads. The h_k add up to 0 after every round, so x is the mean of the y_k. A client keeps
    z_k = y_k - (eta / p) h_k, of which x is the mean, and finds h_k = (p / eta) (x - z_k) when it is sent x.

    Args:
        batches: with `steps`, the same for all: a number K for 1 / p steps in every round, or the coins, drawn as
            `fl.on_round(lambda t: jax.random.geometric(jax.random.fold_in(jax.random.key(0), t), p))`.
        learning_rate: eta, a number or a tracer; not a schedule, since the h_k are in units of it. The clients' steps are of plain SGD.
        p: in (0, 1]; 1 / K by default.
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, population, uplink, engine: as in `fedavg`. All clients take part in every round (`fl.sampling.everyone`): one that
            drops out keeps its z_k, and x is the mean of the others'.

    Raises:
        ValueError: for epochs in place of steps, coins without p, numbers out of range, a schedule of eta, an aggregator that weighs
            clients or is private; in a round, for a cohort with fewer slots than clients.

    >>> import fedjax_lite as fl
    >>> import jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.scaffnew(loss_fn, learning_rate=0.1, batches=fl.Batches(None, steps=5), population=2)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=60, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # the optimum (1 + 15) / 4; FedAvg ends at 3.68
    4.0

    Source: Mishchenko et al. 2022, "ProxSkip: yes! Local gradient steps provably lead to communication acceleration! Finally!",
    algorithm 2.
    """
    if callable(learning_rate):
        raise ValueError(
            f"scaffnew: learning_rate must be one number for all rounds, in units of which the h_k are, got {learning_rate!r}: "
            "take fl.algorithms.scaffold under a schedule"
        )
    positive("scaffnew", "learning_rate", learning_rate)
    p = _probability(batches, p)
    aggregator = fitting("scaffnew", aggregator, mean(), keeps="control variates", uniform="x is the mean of all clients' z_k")

    def minus_control(y, shared, own):
        return jax.tree.map(lambda x, z: -(p / learning_rate) * (x - z), shared.params, own.shifted)

    sgd = sgd_work(loss_fn, in_front(gradient_term(minus_control), optax.sgd(learning_rate)))

    def finish(shared, own, carry, client):
        change, _, metrics = sgd.finish(shared, own, carry, client)
        shifted = optax.tree.add(own.shifted, change)  # y_k - (eta / p) h_k is (x + the change) - (x - z_k)
        return optax.tree.sub(shifted, shared.params), Own(shifted), metrics

    work = ClientWork(lambda params, key: Own(params), sgd.start, sgd.step, finish)
    algorithm = federate(work, aggregator, averaging("scaffnew", 1.0), batches=batches, population=population, uplink=uplink, engine=engine)

    def refusal(slots):
        return (
            f"scaffnew: all clients must take part in every round, and the cohort has {slots} of {population}: take "
            "fl.sampling.everyone(), or fl.algorithms.scaffold, of which some can"
        )

    return of_everyone(algorithm, population, refusal)


def _probability(batches: Batches, p: Number | None) -> Number:
    """Return p, by default one over a fixed number of steps; refuse local steps that are not the same for all."""
    if batches.steps is None:
        raise ValueError(
            f"scaffnew: all clients toss one coin, so they take equally many steps: give fl.Batches(..., steps=), got {batches}"
        )
    if p is not None:
        return a_share("scaffnew", "p", p, "(0, 1]")
    if callable(batches.steps):
        raise ValueError("scaffnew: p must be the probability that the schedule of steps is drawn with, got None")
    return 1 / batches.steps
