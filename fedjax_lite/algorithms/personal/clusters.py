"""What methods of clustered clients share: a model for each cluster, their loss, and an aggregator for each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.base import Aggregator, Client, Key, Tree
from fedjax_lite.models.loss_fn import LossFn, call_loss


class Clusters(NamedTuple):
    """What is known of each cluster: its model, or the aggregate of its clients' messages."""

    models: Tree  # [clusters, ...]
    clients: Float[Array, " clusters"]  # how many are in it


def mean_over_clusters(loss_fn: LossFn) -> LossFn:
    """Average the loss, and every metric, of each example over the clusters' models, a cluster counting by its clients.

    >>> loss = mean_over_clusters(lambda params, batch, key: (params - batch) ** 2)
    >>> loss(Clusters(jnp.array([0.0, 2.0]), jnp.array([1.0, 3.0])), jnp.array([1.0, 2.0]), None).tolist()
    [1.0, 1.0]
    """

    def mean(params: Clusters, batch: Tree, key: Any, mask: Any = None) -> Any:
        share = params.clients / jnp.sum(params.clients)
        each = jax.vmap(lambda model: call_loss(loss_fn, model, batch, key, mask=mask))(params.models)
        return jax.tree.map(lambda x: jnp.tensordot(share.astype(x.dtype), x, 1), each)

    setattr(mean, "of_one", loss_fn)
    return mean


def by_cluster(name: str, inner: Aggregator, clusters: int) -> Aggregator:
    """Apply an aggregator to each cluster's messages alone; messages are {"params": a tree, "cluster": its number}.

    A metric of the aggregator has the cluster's number behind its name, but for "non_finite", which adds up.

    Raises:
        ValueError: for an aggregator that is private, or hides single messages.

    >>> import fedjax_lite as fl
    >>> rule, cohort = by_cluster("ifca", fl.aggregators.mean(), 3), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> stack = {"params": jnp.array([1.0, 3.0, 8.0]), "cluster": jnp.array([0, 0, 2])}
    >>> rule.finish(rule.collect(stack, cohort, ()), (), jax.random.key(1))[0]
    Clusters(models=Array([2., 0., 8.], dtype=float32), clients=Array([2., 0., 1.], dtype=float32))
    """
    _check(name, inner)
    every = jnp.arange(clusters)

    def init(message: Tree) -> Tree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (clusters, *jnp.shape(x))), inner.init(message["params"]))

    def inside(messages: Tree, cohort: Client, state: Tree) -> tuple[Tree, Array]:
        chosen, present = messages["cluster"], cohort.weight > 0

        def of_one(c, kept):
            return inner.collect(messages["params"], cohort._replace(weight=jnp.where(chosen == c, cohort.weight, 0)), kept)

        arrived = present & is_finite(messages["params"], present)
        clients = jnp.sum(arrived[:, None] & (chosen[:, None] == every[None]), axis=0, dtype=float)
        return jax.vmap(of_one)(every, state), clients

    def collect(messages: Tree, cohort: Client, state: Tree) -> Tree:
        return inside(messages, cohort, state) if inner.additive else (messages, cohort)

    def finish(part: Tree, state: Tree, key: Key) -> tuple[Clusters, Tree, dict[str, Array]]:
        parts, clients = part if inner.additive else inside(part[0], part[1], state)
        found, after, told = jax.vmap(inner.finish)(parts, state, jax.random.split(key, clusters))
        after = tree.where(clients > 0, tree.cast_like(after, state), state)
        metrics = {f"{name}_{c}": values[c] for name, values in told.items() if name != "non_finite" for c in range(clusters)}
        return Clusters(found, clients), after, metrics | {name: jnp.sum(x) for name, x in told.items() if name == "non_finite"}

    count = inner.bits
    bits = None if count is None else lambda message: count(message["params"]) + 8 * message["cluster"].dtype.itemsize
    return inner._replace(init=init, collect=collect, finish=finish, bits=bits)


def _check(name: str, inner: Aggregator) -> None:
    """Refuse an aggregator whose promise the clients' choice of a cluster would break."""
    if inner.privacy is not None:
        raise ValueError(
            f"{name}: the cluster that a client is in is found from its data and known to the server, which the guarantee of a private "
            "aggregator does not cover: take a method without clusters, for instance fedavg"
        )
    if inner.sums_only:
        raise ValueError(
            f"{name}: secure sums hide single messages, and the sum over a cluster of one client is its message: take a method without "
            "clusters, for instance fedavg, or another aggregator"
        )
