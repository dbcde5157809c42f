"""IFCA, or HypCluster: several models, of which each client trains the one that fits its examples best."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting, on_change, starting_from
from fedjax_lite.algorithms.personal.clusters import Clusters, by_cluster, mean_over_clusters
from fedjax_lite.base import Aggregator, Algorithm, Batch, ClientWork, Key, Mean, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn, values_of
from fedjax_lite.refuse import a_count, positive, short
from fedjax_lite.streams import HIGH_STREAM
from fedjax_lite.work import sgd_work
from fedjax_lite.work.personal import on_device


class Own(NamedTuple):
    """What a client keeps."""

    cluster: Int[Array, ""]  # the model that it chose last
    steps: Tree
    optimizer: Tree = ()


class State(NamedTuple):
    """What the server keeps."""

    models: Tree  # of each cluster the model and its optimizer's state [clusters, ...]
    clients: Float[Array, " clusters"]  # how many chose each last


class Carry(NamedTuple):
    """What it holds while it trains."""

    losses: Mean  # [clusters], of the models as received
    work: Tree


def ifca(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    clusters: int,
    init_scale: Number | None = 0.1,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""IFCA (HypCluster): FedAvg of C models, of which each client trains the one with the least loss on its examples.

    c_k = argmin_c F_k(x_c);  y_k <- K steps from x_{c_k};  x_c <- x_c + eta_g sum_{k: c_k = c} p_k (y_k - x_c).

    The p_k of a cluster sum to 1. F_k is taken over all of the client's examples, as in evaluation, in a pass before training; of equal
    losses the lowest c wins. A cluster that no message came for keeps its model and its optimizer's state. Clients are sent all C models,
    which "downlink_bits" counts.

    Args:
        clusters: C.
        init_scale: the standard deviation of the normal numbers that are added to the first parameters, to make C models that differ. With
            None the parameters given to `init` are the C models, a stack `[clusters, ...]`. Results depend on the start: take several.
        aggregator: applied to each cluster's messages alone; `fl.aggregators.weighted_mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are for each client the model that it chose last, at first model 0, and whose `params(state)`
        are all C, with the number of clients that chose each last; its `loss_fn` is their mean loss, weighted so. The metric "clusters" is
        how many models were chosen.

    Raises:
        ValueError: for a number of clusters below 1, a negative init_scale, a private aggregator, and secure sums; at `init`, for
            parameters that are no stack of C models; in a round, for an uplink that hides the clients' data.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([x])} for x in (2.0, 3.0, 8.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = ifca(loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=3, clusters=2, init_scale=None)
    >>> state, _ = fl.simulate(algorithm, data, jnp.array([0.0, 9.0]), fl.sampling.everyone(), rounds=20, key=jax.random.key(0))
    >>> algorithm.params(state).models.round(3).tolist(), algorithm.models(state).round(3).tolist()
    ([2.5, 8.0], [2.5, 2.5, 8.0])

    Source: Ghosh et al. 2020, "An efficient framework for clustered federated learning", algorithm 1 (model averaging); Mansour et al.
    2020, "Three approaches for personalization with applications to federated learning", algorithm 2.
    """
    clusters = a_count("ifca", "clusters", clusters)
    if init_scale is not None:
        positive("ifca", "init_scale", init_scale, or_zero=True)
    average = averaging("ifca", server_learning_rate)

    def init(models):
        return State(jax.vmap(average.init)(models), jnp.ones(clusters, jnp.result_type(float)))

    def update(found, state, info):
        if not info.metrics:  # which clients report wherever they hide nothing
            raise ValueError(
                "ifca: the model that a client chooses is found from its data, and sent beside the change that the uplink hides: take a "
                "method without such a choice, for instance fedavg"
            )
        after = jax.vmap(lambda change, model: average.update(change, model, info))(found.models, state.models)
        after = tree.where(found.clients > 0, tree.cast_like(after, state.models), state.models)
        return State(after, jnp.where(jnp.any(found.clients > 0), found.clients, state.clients))

    def told(state):
        return {"clusters": jnp.sum(state.clients > 0, dtype=float)}

    built = federate(
        _choosing(sgd_work(loss_fn, optimizer, learning_rate=learning_rate), loss_fn, clusters),
        by_cluster("ifca", fitting("ifca", aggregator, weighted_mean()), clusters),
        Server(init, lambda state: Shared(state.models.params), update, params=lambda state: state.models.params, metrics=told),
        batches=batches._replace(before=1, after=0),
        population=population,
        uplink=on_change(uplink),
        engine=engine,
    )

    def params(state):
        return Clusters(state.server.models.params, state.server.clients)

    def models(state, ids=None):
        return tree.take(state.server.models.params, tree.some(on_device(state.own).cluster, ids))

    begun = starting_from(lambda params, key: _several(params, key, clusters, init_scale), built)
    return begun._replace(params=params, models=models, loss_fn=mean_over_clusters(loss_fn))


def _several(params: Tree, key: Key, clusters: int, init_scale: Number | None) -> Tree:
    """Make the first models: those given, or normal numbers around the one given."""
    if init_scale is None:
        shapes = [jnp.shape(x) for x in jax.tree.leaves(params)]
        if any(shape[:1] != (clusters,) for shape in shapes):
            raise ValueError(
                f"ifca: with init_scale=None the parameters are a stack of {clusters} models, got leaves of shapes {short(shapes)}: "
                "stack as many, or give init_scale"
            )
        return params
    several = jax.tree.map(lambda x: jnp.broadcast_to(x, (clusters, *jnp.shape(x))), params)
    noise = optax.tree.random_like(jax.random.fold_in(key, HIGH_STREAM + 1), several)
    return jax.tree.map(lambda x, z: x + (init_scale * z).astype(x.dtype), several, noise)


def _choosing(sgd: ClientWork, loss_fn: LossFn, clusters: int) -> ClientWork:
    """Let client work train, of several models, the one with the least loss in a pass before training."""

    def chosen(carry: Carry) -> Array:
        return jnp.argmin(carry.losses.value()).astype(jnp.int32)  # where all are NaN, of an empty slot, the first

    def sent(shared: Shared, carry: Carry) -> Shared:
        return shared._replace(params=tree.take(shared.params, chosen(carry)))

    def losses(models: Tree, batch: Batch) -> Mean:
        def of_one(model):
            loss = values_of(loss_fn, model, batch.examples, None, batch.mask)["loss"]
            return jax.tree.map(lambda value: jnp.sum(jnp.where(batch.mask & ~jnp.asarray(batch.learning), value, 0)), loss)

        return jax.vmap(of_one)(models)

    def start(shared, own, client):
        nothing = jnp.zeros(clusters, jnp.result_type(float))
        carry = Carry(Mean(nothing, nothing), ())
        return carry._replace(work=sgd.start(sent(shared, carry), own, client))

    def step(shared, own, carry, batch):
        more = tree.cast_like(losses(shared.params, batch), carry.losses)
        carry = carry._replace(losses=jax.tree.map(jnp.add, carry.losses, more))
        mine = sent(shared, carry)
        # In the pass training begins anew from the best model so far, and so at its end from the best of all.
        work = tree.where(jnp.asarray(batch.learning), carry.work, sgd.start(mine, own, batch.client))
        work, metrics = sgd.step(mine, own, work, batch)
        return carry._replace(work=work), metrics

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(sent(shared, carry), own, carry.work, client)
        return {"params": change, "cluster": chosen(carry)}, Own(chosen(carry), *after), metrics

    return ClientWork(lambda params, key: Own(jnp.int32(0), *sgd.init(params, key)), start, step, finish)
