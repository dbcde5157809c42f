"""When clusters of clients are cut in two, and how their models go on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.sums import gram, squared_norms
from fedjax_lite.algorithms.personal.bipartition import complete_linkage, single_linkage
from fedjax_lite.base import Number, Tree

LINKAGES = {"single": single_linkage, "complete": complete_linkage}


class State(NamedTuple):
    """The server's state."""

    models: Tree  # [max_clusters, ...]; from `number` on copies of the first model
    cluster: Int[Array, " population"]  # the cluster of each client
    number: Int[Array, ""]  # how many clusters there are


class Sent(NamedTuple):
    """What arrived, by client; zeros of a client that sent nothing finite."""

    changes: Tree  # [population, ...]
    weight: Float[Array, " population"]  # how much each counts


class Rule(NamedTuple):
    """When and how clusters are cut."""

    eps1: Number
    eps2: Number
    relative: bool
    min_size: int
    first_round: int
    gamma: Number | None
    linkage: str


def means(sent: Sent, cluster: Int[Array, " population"], clusters: int) -> Tree:
    """Return the mean change of each cluster; 0 where none arrived."""
    weight = jnp.where(cluster[None] == jnp.arange(clusters)[:, None], sent.weight[None], 0)
    share = weight / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)
    return jax.tree.map(
        lambda x: jnp.tensordot(share.astype(tree.wide(x).dtype), tree.wide(x), 1, precision="highest").astype(x.dtype), sent.changes
    )


def moved(sent: Sent, state: State) -> State:
    """Move each cluster by the mean change of its clients."""
    change = means(sent, state.cluster, jax.tree.leaves(state.models)[0].shape[0])
    return state._replace(models=jax.tree.map(lambda x, d: x + d.astype(x.dtype), state.models, change))


def cut(rule: Rule, sent: Sent, state: State, round: Any) -> State:
    """Cut the clusters that are at rest while their clients are not, as long as there are slots for more."""
    clusters, arrived = jax.tree.leaves(state.models)[0].shape[0], sent.weight > 0
    norms = jnp.sqrt(squared_norms(sent.changes, arrived))
    within = (state.cluster[None] == jnp.arange(clusters)[:, None]) & arrived[None]
    size = jnp.sum(within, axis=1)
    still = jnp.sqrt(squared_norms(means(sent, state.cluster, clusters), jnp.ones(clusters, bool)))
    unit = jnp.sum(jnp.where(within, norms[None], 0), axis=1) / jnp.maximum(size, 1) if rule.relative else 1.0
    apart = (still < rule.eps1 * unit) & (jnp.max(jnp.where(within, norms[None], 0), axis=1) > rule.eps2)
    wanted = apart & (size >= rule.min_size) & (round >= rule.first_round) & (state.number < clusters)

    def each_in_turn(state):
        lengths = jnp.where(norms > 0, norms, 1)
        similarity = gram(sent.changes, arrived) / (lengths[:, None] * lengths[None])
        return jax.lax.fori_loop(0, clusters, lambda c, state: _cut_one(rule, similarity, wanted[c], within[c], c, state), state)

    return jax.lax.cond(jnp.any(wanted), each_in_turn, lambda state: state, state)


def _cut_one(rule: Rule, similarity: Array, wanted: Array, members: Bool[Array, " population"], c: Any, state: State) -> State:
    """Cut cluster c in two, if it is wanted, allowed, and there is a slot; the part with the first member keeps c."""
    other = jax.lax.cond(wanted, LINKAGES[rule.linkage], lambda similarity, members: jnp.zeros_like(members), similarity, members)
    across = other[:, None] & (members & ~other)[None]
    allowed = rule.gamma is None or jnp.max(jnp.where(across, similarity, -jnp.inf)) < jnp.sqrt((1 - rule.gamma) / 2)
    done = wanted & allowed & (state.number < jax.tree.leaves(state.models)[0].shape[0])
    models = jax.tree.map(lambda x: x.at[jnp.where(done, state.number, c)].set(x[c]), state.models)
    return State(models, jnp.where(done & other, state.number, state.cluster), state.number + done)
