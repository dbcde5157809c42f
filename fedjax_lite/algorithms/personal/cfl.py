"""CFL: clusters of clients are cut in two where their updates still point apart though the cluster's model has come to rest."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.aggregators.lift import from_stack
from fedjax_lite.algorithms.decentralised.dpsgd import by_client, on_own_models
from fedjax_lite.algorithms.optimisation.pieces import of_everyone
from fedjax_lite.algorithms.personal.clusters import Clusters, mean_over_clusters
from fedjax_lite.algorithms.personal.cuts import LINKAGES, Rule, Sent, State, cut, moved
from fedjax_lite.base import Algorithm, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count, a_share, positive
from fedjax_lite.work import sgd_work


def cfl(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    eps1: Number = 0.4,
    eps2: Number = 1.6,
    relative: bool = False,
    min_size: int = 3,
    first_round: int = 20,
    max_clusters: int = 8,
    linkage: str = "single",
    gamma: Number | None = None,
    by_examples: bool = False,
    learning_rate: Any = None,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Clustered FL (CFL): FedAvg in each cluster of clients; all begin in one, and a cluster is cut in two where it fits them no longer.

    D_k = y_k - x_c after K steps from x_c, c the cluster of k; c is cut where |mean_c D_k| < eps1 and max_c |D_k| > eps2, into the two
    parts between which the largest cosine of D_i and D_j is least; then x_c <- x_c + mean_c D_k, the mean over each part.

    Both parts go on from the model of the cluster that is cut. The cut is made in the round's compiled program, whose work for it is done
    in a round alone in which some cluster may be cut. The eps depend on the model, the rate and the number of steps: with `relative` the
    first does not.

    Args:
        eps1, eps2: as above; their defaults are those of the authors' code for a small network.
        relative: eps1 is in units of the mean of the |D_k| over the cluster, and so below 1.
        min_size: clients that a cluster must have to be cut, at least 2.
        first_round: the first round, counted from 0, in which a cluster may be cut.
        max_clusters: how many there may be; the models of all are kept from the start.
        linkage: "single" finds the cut exactly; "complete" is that of the authors' code, and need not find it.
        gamma: in [0, 1]; a cut counts only if the largest cosine across is below sqrt((1 - gamma) / 2), the paper's condition for a right
            one. None: every cut counts.
        by_examples: means are weighted by numbers of examples, as in the paper; in the authors' code all clients count the same.
        loss_fn, optimizer, batches, population, learning_rate, uplink, engine: as in `fedavg`. All clients take part in every round
            (`fl.sampling.everyone`); one whose message is not finite, or that takes no step, stays in its cluster.

    Returns:
        An `Algorithm` whose `models(state)` are each client's cluster's model, and whose `params(state)` are the models of all clusters
        with their numbers of clients; its `loss_fn` is the mean loss over all clients' models. The metric "clusters" is how many there are,
        "non_finite" how many messages were not finite.

    Raises:
        ValueError: for numbers out of range, another linkage; in a round, for a cohort with fewer slots than clients.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([x])} for x in (-1.0, 1.2, -1.4, 1.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> given = {"batches": fl.Batches(None), "population": 4, "max_clusters": 2}
    >>> algorithm = cfl(loss_fn, optax.sgd(0.5), eps1=0.1, eps2=0.3, first_round=2, **given)
    >>> state, told = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=20, key=jax.random.key(0))
    >>> [round(float(x), 3) for x in algorithm.models(state)], told["clusters"][:4].tolist()
    ([-1.2, 1.1, -1.2, 1.1], [1.0, 1.0, 2.0, 2.0])

    Source: Sattler, Mueller, Samek 2019, "Clustered federated learning: model-agnostic distributed multi-task optimization under privacy
    constraints", algorithms 1 and 2.
    """
    positive("cfl", "eps1", eps1, or_zero=True)
    positive("cfl", "eps2", eps2, or_zero=True)
    min_size, first_round = a_count("cfl", "min_size", min_size, least=2), a_count("cfl", "first_round", first_round, least=0)
    max_clusters = a_count("cfl", "max_clusters", max_clusters)
    if linkage not in LINKAGES:
        raise ValueError(f'cfl: linkage must be "single" or "complete", got {linkage!r}')
    gamma = gamma if gamma is None else a_share("cfl", "gamma", gamma, "[0, 1]")
    rule = Rule(eps1, eps2, relative, min_size, first_round, gamma, linkage)

    def update(sent, state, info):
        return moved(sent, cut(rule, sent, state, info.round))

    def models(state, ids=None):
        return tree.take(state.server.models, tree.some(state.server.cluster, ids))

    def params(state):
        clients = jax.ops.segment_sum(jnp.ones(population, jnp.result_type(float)), state.server.cluster, max_clusters)
        return Clusters(state.server.models, clients)

    def arrived(changes, cohort):
        weight = (cohort.size if by_examples else jnp.ones_like(cohort.size)).astype(jnp.result_type(float))
        return by_client(Sent(changes, weight), cohort, population)

    def finish(part, state, key):
        sent, state, _ = apart.finish(part, state, key)
        return sent, state, {"non_finite": (jnp.sum(part[1].weight > 0) - jnp.sum(sent.weight > 0)).astype(jnp.float32)}

    server = Server(
        init=lambda params: State(_copies(params, max_clusters), jnp.zeros(population, jnp.int32), jnp.int32(1)),
        broadcast=lambda state: Shared((), each=tree.take(state.models, state.cluster)),
        update=update,
        params=lambda state: state.models,
        metrics=lambda state: {"clusters": state.number.astype(float)},
    )
    work, apart = on_own_models(sgd_work(loss_fn, optimizer, learning_rate=learning_rate)), from_stack(arrived)
    aggregator = apart._replace(finish=finish)
    built = federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)

    def refusal(slots):
        return (
            f"cfl: {slots} of {population} clients take part, and clusters are found from the updates of all: sample with "
            "fl.sampling.everyone(), or take fl.algorithms.ifca, of which some can"
        )

    layout = built.layout and built.layout._replace(rows=None)  # all take part, and the server has all models
    built = built._replace(params=params, models=models, loss_fn=mean_over_clusters(loss_fn), layout=layout)
    return of_everyone(built, population, refusal)


def _copies(params: Tree, copies: int) -> Tree:
    """Return a stack of copies of a tree."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (copies, *jnp.shape(x))), params)
