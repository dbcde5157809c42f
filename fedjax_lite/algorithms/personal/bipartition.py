"""Cut clients in two by the similarity of their updates, so that the most similar pair across is as dissimilar as can be."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Similarity = Float[Array, "clients clients"]
Members = Bool[Array, " clients"]


def single_linkage(similarity: Similarity, members: Members) -> Members:
    """Mark one side of the cut across which the most similar pair is least similar: exact, by a maximum spanning tree.

    Prim's algorithm adds the client that is most similar to the tree so far. Where its weakest edge is added, no pair across is stronger,
    so the clients from there on are one side; the other has the first member. Without two members no client is marked.

    >>> similarity = jnp.array([[1.0, 0.9, -0.5], [0.9, 1.0, -0.8], [-0.5, -0.8, 1.0]])
    >>> single_linkage(similarity, jnp.array([True, True, True])).tolist()
    [False, False, True]
    """
    number = len(members)

    def add(t, state):
        nearest, joined, strength = state  # the similarity to the tree; when a client joined, and how similar it was
        waiting = members & (joined == number)
        new = jnp.argmax(jnp.where(waiting, nearest, -jnp.inf))
        chosen = waiting & (jnp.arange(number) == new)
        return jnp.maximum(nearest, similarity[new]), jnp.where(chosen, t, joined), jnp.where(chosen, nearest, strength)

    first = jnp.arange(number) == jnp.argmax(members)
    begun = similarity[jnp.argmax(members)], jnp.where(first, 0, number), jnp.full(number, jnp.inf, similarity.dtype)
    _, joined, strength = jax.lax.fori_loop(1, number, add, begun)
    return members & ~first & (joined >= joined[jnp.argmin(strength)])


def complete_linkage(similarity: Similarity, members: Members) -> Members:
    """Mark one side of the cut that is left when clusters whose least similar pair is most similar merge, until there are two.

    This is the rule of the authors' code; the cut that it finds need not be the one of least similarity across. Of equals the clusters
    with the lowest clients merge; the side that is marked has not the first member. Without two members no client is marked.

    >>> similarity = jnp.array([[1.0, 0.9, -0.5], [0.9, 1.0, -0.8], [-0.5, -0.8, 1.0]])
    >>> complete_linkage(similarity, jnp.array([True, True, True])).tolist()
    [False, False, True]
    """
    number = len(members)

    def merge(state):
        alive, between, cluster = state
        pairs = alive[:, None] & alive[None] & ~jnp.eye(number, dtype=bool)
        i, j = jnp.unravel_index(jnp.argmax(jnp.where(pairs, between, -jnp.inf)), pairs.shape)  # i < j, as it is symmetric
        least = jnp.minimum(between[i], between[j])
        between = between.at[i].set(least).at[:, i].set(least)
        return alive.at[j].set(False), between, jnp.where(cluster == j, i, cluster)

    begun = members, similarity, jnp.arange(number)
    cluster = jax.lax.while_loop(lambda state: jnp.sum(state[0]) > 2, merge, begun)[2]
    return members & (cluster != cluster[jnp.argmax(members)])
