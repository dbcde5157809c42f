"""A model of which some leaves stay with each client and the others travel."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.base import ClientWork, Info, Key, Server, Shared, State, Tree
from fedjax_lite.leaves import Rule, chosen, merge, split

__all__ = ["Partly", "keep_leaves"]


class Partly(NamedTuple):
    """Client work and a server for a model of which only some leaves travel."""

    work: ClientWork
    server: Server
    models: Callable[[State, Any], Tree]  # State, ids -> the models of these clients, for `Algorithm.models`


class Own(NamedTuple):
    """The own row of client work under `keep_leaves`."""

    leaves: Tree  # the client's own leaves of the model, None in place of those that travel
    steps: Tree = ()
    optimizer: Tree = ()


class _Public(NamedTuple):
    """What all clients have, and is not sent: leaves that nobody learns, and what the inner server made public."""

    leaves: Tree
    inner: Tree


class _Kept(NamedTuple):
    """The server's state under `keep_leaves`."""

    inner: Tree
    personal: Tree  # the first model's leaves in place of those that stay with clients: what a new client starts with
    fixed: Tree


def keep_leaves(work: ClientWork, server: Server, personal: Rule, fixed: Rule = "none", *, some: bool = True) -> Partly:
    """Let leaves of the model stay with each client, while the others travel.

    y^0 = (x on the leaves that travel, own_k on the others);  message = y^K - x, own_k <- y^K, each on its leaves.

    Aggregators, uplinks, clipping, the server's optimizer and the counts of bits see what travels, and nothing else. The server's global
    model has the first model's leaves in place of those that stay.

    Args:
        work: client work whose message is the change of the model, such as `fl.sgd_work(...)`.
        server: any server that broadcasts the model that it is given, such as `fl.optimizer_server(...)`.
        personal: which leaves stay: a regular expression for their paths ("Dense_2/.*"), "norm layers", "all", "none", or a function
            `(path, leaf) -> bool`, such as `fl.leaves.last_layer(model, example)`. They start as in the first model.
        fixed: which leaves nobody learns, and nobody sends: give the optimizer `train_leaves` that leaves them out.
        some: whether a rule that chooses no leaf, or all of them, is refused.

    Returns:
        Work, server and the function that makes the clients' models: `fl.federate(kept.work, ..., kept.server, ...)._replace(models=
        kept.models)`.

    Raises:
        ValueError: when the algorithm begins, for such a rule, with the paths that there are.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([4.0])}])
    >>> loss_fn = lambda params, batch, key: (params["a"] + params["b"] - batch["x"]) ** 2 / 2
    >>> kept = fl.keep_leaves(fl.sgd_work(loss_fn, optax.sgd(0.5)), fl.optimizer_server(optax.sgd(1.0)), "b")
    >>> algorithm = fl.federate(kept.work, fl.aggregators.mean(), kept.server, batches=fl.Batches(None), population=2)
    >>> begin = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    >>> state, _ = fl.simulate(algorithm, data, begin, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> jax.tree.map(lambda x: x.tolist(), kept.models(state))
    {'a': [1.5, 1.5], 'b': [1.0, 2.0]}

    Source: Pillutla et al. 2022, "Federated learning with partial model personalization", algorithm 2 (FedSim).
    """
    rules = partial(_parted, personal, fixed, some)
    kept = Server(
        init=lambda params: _init(server, *rules(params)),
        broadcast=partial(_broadcast, server),
        update=partial(_update, server),
        uses_metrics=server.uses_metrics,
        params=partial(_params, server),
        metrics=lambda state: server.metrics(state.inner),
    )
    return Partly(_keeping(work, rules), kept, partial(_models, kept))


def _parted(personal: Rule, fixed: Rule, some: bool, params: Tree) -> tuple[Tree, Tree, Tree]:
    """Part a model into the leaves that travel, those that stay with clients, and those that nobody learns."""
    mine, others = split(chosen("keep_leaves: personal", personal, params, some and fixed == "none"), params)
    still, moving = split(chosen("keep_leaves: fixed", fixed, others, some and fixed != "none"), others)
    return moving, mine, still


def _keeping(work: ClientWork, rules: Callable[[Tree], tuple[Tree, Tree, Tree]]) -> ClientWork:
    """Make the clients' work."""

    def whole(shared: Shared, own: Own) -> Shared:
        return shared._replace(params=merge(shared.params, own.leaves, shared.public.leaves), public=shared.public.inner)

    def init(params: Tree, key: Key) -> Own:
        return Own(rules(params)[1], *work.init(params, key))

    def start(shared, own, client):
        return work.start(whole(shared, own), own, client)

    def step(shared, own, carry, batch):
        return work.step(whole(shared, own), own, carry, batch)

    def finish(shared, own, carry, client):
        change, after, metrics = work.finish(whole(shared, own), own, carry, client)
        leaves = optax.apply_updates(own.leaves, _like(own.leaves, change))
        leaves = tree.if_finite(leaves, own.leaves)  # whether they are, the message may not show
        return _like(shared.params, change), Own(leaves, *after), metrics

    return ClientWork(init, start, step, finish, personal=True)


def _init(server: Server, moving: Tree, mine: Tree, still: Tree) -> _Kept:
    """Begin with a model in its parts."""
    return _Kept(server.init(moving), mine, still)


def _broadcast(server: Server, state: _Kept) -> Shared:
    """Send the leaves that travel; those that nobody learns are known."""
    shared = server.broadcast(state.inner)
    return shared._replace(public=_Public(state.fixed, shared.public))


def _update(server: Server, aggregate: Tree, state: _Kept, info: Info) -> _Kept:
    """Change the leaves that travel."""
    return state._replace(inner=server.update(aggregate, state.inner, info))


def _params(server: Server, state: _Kept) -> Tree:
    """Return the global model: what a client starts with that has not taken part."""
    moving = server.params(state.inner) if server.params else server.broadcast(state.inner).params
    return merge(moving, state.personal, state.fixed)


def _models(server: Server, state: State, ids: Any = None) -> Tree:
    """Return the models of clients `ids`, by default of all: the leaves that would be sent next, and each one's own."""
    shared, mine = server.broadcast(state.server), on_device(state.own).leaves
    if ids is None:
        ids = jnp.arange(len(jax.tree.leaves(mine)[0]))
    sent = merge(shared.params, shared.public.leaves)
    return merge(jax.tree.map(lambda x: jnp.broadcast_to(x, (*jnp.shape(ids), *jnp.shape(x))), sent), tree.take(mine, ids))


def on_device(own: Tree) -> Tree:
    """Return the own rows of all clients; refuse those that are in host memory, where there are some of them only.

    Raises:
        ValueError: saying where they are.
    """
    if own._fields == ("ids", "rows"):
        where = "in state.own.rows, of the clients state.own.ids"
        raise ValueError(f"models: what clients keep is in host memory, {where}: join them with the global model")
    return own


def models_kept(state: State, ids: Any = None) -> Tree:
    """Return the models that clients `ids` keep whole, in `own.model`; by default of all."""
    return tree.some(on_device(state.own).model, ids)


def _like(part: Tree, whole: Tree) -> Tree:
    """Take the leaves of a tree that a split one has."""
    return jax.tree.map(lambda mine, x: None if mine is None else x, part, whole, is_leaf=lambda x: x is None)
