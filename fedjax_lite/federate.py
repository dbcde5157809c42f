"""One federated round. It knows no algorithm by name: every decision comes in as a function."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.base import (
    Aggregator,
    Algorithm,
    Client,
    ClientWork,
    Info,
    Key,
    Layout,
    Server,
    State,
    Tree,
    aggregate_key,
    client_keys,
    round_key,
)
from fedjax_lite.batches import Batches
from fedjax_lite.clients import SENT, Family, side_of
from fedjax_lite.engine import Engine, packed
from fedjax_lite.guarantees import composable, hidden, refuse_memory
from fedjax_lite.metrics import INSIDE, check_names
from fedjax_lite.optimizer_state import refuse_common_noise
from fedjax_lite.refuse import complex_leaves, integer

__all__ = ["federate"]


def federate(
    work: ClientWork | list[Family],
    aggregator: Aggregator,
    server: Server,
    *,
    batches: Batches,
    population: int,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    """Compose client work, uplink, aggregator and server into an algorithm.

    One round: broadcast - gather own and uplink rows - [start, steps, finish, uplink] a client - collect - finish -
    server update - scatter.

    Args:
        work: what one client does, for instance `fl.sgd_work(...)`; or a list of `fl.Family`, clients of several architectures whose
            messages are alike. The parameters that are given and broadcast are then a tuple with those of each family, and so is what
            clients keep.
        aggregator: how messages become one, for instance `fl.aggregators.weighted_mean()`.
        server: what is broadcast and how an aggregate is applied, for instance `fl.optimizer_server(optax.sgd(1.0))`.
        batches: which examples each local step sees.
        population: how many clients there are; sizes the state that clients keep.
        uplink: an optax transformation of one client's message; its state is the client's own. It is given the keywords
            `round`, `key`, `weight`, `client` and `public`, what the server broadcasts under that name.
        engine: `fl.packed(lanes)` (default), `fl.padded()` or `fl.sequential()`; the same results from all.

    Returns:
        An `Algorithm`: `init(params, key) -> State`, `round(state, data, cohort) -> (State, metrics)`, `params(state)`.
        Metrics are float scalars: those of the client work (of clients whose messages are finite) and the aggregator, "clients" (how many
        took part), "update_norm" (how far the global model moved), and sums over the clients that took part: "uplink_bits" (what they
        sent, as `fl.uplink` counts it), "uplink_side_bits" (the positions, scales and seeds in it), "downlink_bits" (what they were sent:
        all of `fl.Shared` but what is public, and of what is each client's own one row).
        What a client keeps is written only where its message is finite.
        A cohort without clients leaves the model as it is, but for the noise of a private aggregator.

    Raises:
        TypeError, ValueError: for parts that are none, a population that is not the data's, metrics reported twice.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([x])} for x in (1.0, 2.0, 90.0)])
    >>> work = fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2 / 2, optax.sgd(1.0))
    >>> rule, server = fl.aggregators.median(), fl.optimizer_server(optax.sgd(1.0))
    >>> algorithm = fl.federate(work, rule, server, batches=fl.Batches(None), population=3)
    >>> state, history = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4), history["uplink_bits"].tolist()
    (2.0, [96.0])
    """
    families = work if isinstance(work, list) else Family(work, population, uplink)
    if isinstance(families, list) and uplink is not None:
        raise ValueError("federate: each of several families has its own uplink: give it in fl.Family")
    for name, value, kind in (
        *(("work", getattr(family, "work", family), ClientWork) for family in (families if isinstance(families, list) else [families])),
        ("aggregator", aggregator, Aggregator),
        ("server", server, Server),
        ("batches", batches, Batches),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"federate: {name} must be a fl.{kind.__name__}, got {value!r}: call the function that makes one")
    for name, value, kind, maker in (
        ("uplink", uplink, optax.GradientTransformation, "such as fl.uplink.top_k(0.1)"),
        ("engine", engine, Engine, "such as fl.packed()"),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"federate: {name} must be a {kind.__name__}, {maker}, got {value!r}: call the function that makes one")
    integer("federate", "population", population, least=1)
    side = side_of(families, aggregator, batches, engine or packed(), population)
    params_of = server.params or (lambda state: server.broadcast(state).params)

    def init(params: Tree, key: Key) -> State:
        params = jax.tree.map(jnp.asarray, params)
        complex_leaves("params", params)
        state = server.init(params)
        begun = (params, server.broadcast(state), key)
        message = side.message(*begun)
        complex_leaves("the clients' message", message)
        rows = checked_rows(side.begin(*begun))
        return State(jnp.int32(0), key, state, aggregator.init(message), *rows)

    def first_rows(params: Tree, key: Key, ids: Any) -> tuple[Tree, Tree]:
        """What these clients keep, own and uplink state, before they first take part."""
        assert side.rows is not None
        return checked_rows(side.rows(params, server.broadcast(server.init(params)), key, ids))

    def checked_rows(rows: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        refuse_common_noise(rows[1], "uplink")
        composable(aggregator.privacy is not None or hidden(*rows), server)
        if aggregator.privacy is not None:
            refuse_memory(*rows)
        return rows

    def started(state: State, data: Any, cohort: Client) -> tuple[tuple, Client]:
        """What is common to all clients, and the cohort with keys and steps."""
        if data.population != population:
            raise ValueError(
                f"the algorithm was built for population={population}, the data has {data.population} clients: make them equal"
            )
        cohort = data.locate(cohort._replace(key=client_keys(round_key(state), cohort.id)))
        return (server.broadcast(state.server), state.round, state.aggregator), steps(cohort, state.round)

    def round(state: State, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
        key = aggregate_key(round_key(state))
        common, cohort = started(state, data, cohort)

        part, rows, sums = side.train(common, data, cohort, (state.own, state.uplink))
        bits = sums.pop(SENT)
        private = aggregator.privacy is not None or hidden(state.own, state.uplink)
        if private:
            check_names(sums, "private client work", INSIDE)
        aggregate, aggregator_state, metrics = aggregator.finish(part, state.aggregator, jax.random.fold_in(key, 0))
        metrics = _beside({name: metric.value() for name, metric in sums.items()}, metrics, "client work and aggregator")
        present = cohort.weight > 0
        clients = jnp.sum(present, dtype=jnp.result_type(float))
        info = Info(state.round, jax.random.fold_in(key, 1), {} if private else metrics, jnp.nan * clients if private else clients)
        server_state = server.update(aggregate, state.server, info)

        before = (state.server, state.aggregator)
        after = tree.cast_like((server_state, aggregator_state), before)
        counts = jnp.any(present) if aggregator.privacy is None else jnp.bool_(True)
        server_state, aggregator_state = tree.where(counts, after, before)
        metrics = _beside(metrics, server.metrics(server_state), "clients or aggregator and server")
        check_names(metrics, "the client work, the aggregator or the server")
        moved = optax.tree.sub(params_of(server_state), params_of(state.server))
        metrics |= {"clients": clients.astype(jnp.float32), "update_norm": optax.tree.norm(moved)}
        metrics |= {"uplink_bits": bits.payload + bits.side, "uplink_side_bits": bits.side}
        metrics |= {"downlink_bits": side.received(common[0], cohort)}
        if cohort.place.left_out is not None:
            metrics["left_out"] = jnp.sum(cohort.place.left_out).astype(jnp.float32)
        return State(state.round + 1, state.key, server_state, aggregator_state, *rows), metrics

    def steps(cohort: Client, round: Any) -> Client:
        """Settle each client's steps; one that has no examples, no steps or no weight is an empty slot."""
        planned = jnp.minimum(cohort.steps, batches.steps_of(cohort.size, round))
        working = (planned > 0) & (cohort.weight > 0)
        return cohort._replace(steps=jnp.where(working, planned, 0), weight=jnp.where(working, cohort.weight, 0))

    def stacks(state: State, data: Any, cohort: Client) -> dict[str, Tree]:
        """Zeros in the shape of what each device holds of its clients: their carries in lanes and, where parts do not add, messages."""
        common, cohort = started(state, data, cohort)
        return side.stacks(common, data, cohort, (state.own, state.uplink))

    layout = Layout(steps, first_rows if side.rows else None, stacks)
    return Algorithm(init, round, lambda state: params_of(state.server), layout, aggregator.privacy)


def _beside(metrics: dict[str, Any], more: dict[str, Any], whose: str) -> dict[str, Any]:
    if twice := metrics.keys() & more.keys():
        raise ValueError(f"{whose} both report {', '.join(sorted(twice))}: rename one")
    return metrics | more
