"""One federated round. It knows no algorithm by name: every decision comes in as a function."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.base import Aggregator, Algorithm, Client, ClientWork, Info, Key, Layout, Server, State, Tree, round_key
from fedjax_lite.batches import Batches
from fedjax_lite.clients import SENT, Family, Side, side_of
from fedjax_lite.engine import Engine, packed
from fedjax_lite.engine.pace import Demand
from fedjax_lite.guarantees import composable, hidden, refuse_memory
from fedjax_lite.ledger import Cost
from fedjax_lite.metrics import INSIDE, check_names
from fedjax_lite.optimizer_state import refuse_common_noise
from fedjax_lite.refuse import complex_leaves, integer
from fedjax_lite.streams import aggregate_key, client_keys

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
    _check(families, aggregator, server, batches, population, uplink, engine)
    engine = engine or packed()
    side = side_of(families, aggregator, batches, engine, population)
    params_of = server.params or (lambda state: server.broadcast(state).params)
    parts = _Parts(side, aggregator, server, batches, population, params_of)
    rows = partial(_first_rows, parts) if side.rows else None
    layout = Layout(
        partial(_settle_steps, batches),
        rows,
        partial(_stacks, parts),
        partial(_demand, parts),
        engine.queued and not isinstance(work, list),
    )
    privacy = aggregator.privacy
    if privacy is not None and side.personal:
        privacy = privacy._replace(personal=True)
    return Algorithm(partial(_init, parts), partial(_round, parts), lambda state: params_of(state.server), layout, privacy)


class _Parts(NamedTuple):
    """The parts that a round is composed of."""

    side: Side
    aggregator: Aggregator
    server: Server
    batches: Batches
    population: int
    params_of: Callable[[Tree], Tree]  # the server's state -> the global model


def _round(parts: _Parts, state: State, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
    """Run one round: broadcast, train, aggregate, update; and report its metrics."""
    side, aggregator, server = parts.side, parts.aggregator, parts.server
    key = aggregate_key(round_key(state))
    counted = cohort.sums
    common, cohort = _begin(parts, state, data, cohort)

    part, rows, sums = side.train(common, data, cohort, (state.own, state.uplink))
    bits, arrived = sums.pop(SENT)
    aggregate, aggregator_state, metrics = aggregator.finish(part, state.aggregator, jax.random.fold_in(key, 0))
    metrics, info = _report(parts, state, (cohort, arrived), sums, metrics, jax.random.fold_in(key, 1))
    server_state = server.update(aggregate, state.server, info)
    server_state, aggregator_state = _unless_nobody(parts, state, cohort, (server_state, aggregator_state))

    metrics = _join(metrics, server.metrics(server_state), "clients or aggregator and server")
    check_names(metrics, "the client work, the aggregator or the server")
    metrics |= _count_traffic(cohort, counted, bits, side.received(common[0], cohort))
    metrics["update_norm"] = optax.tree.norm(optax.tree.sub(parts.params_of(server_state), parts.params_of(state.server)))
    return State(state.round + 1, state.key, server_state, aggregator_state, *rows), metrics


def _init(parts: _Parts, params: Tree, key: Key) -> State:
    """Make the first state; refuse complex parameters and messages, and rows that break a guarantee."""
    params = jax.tree.map(jnp.asarray, params)
    complex_leaves("params", params)
    state = parts.server.init(params)
    begun = (params, parts.server.broadcast(state), key)
    message = parts.side.message(*begun)
    complex_leaves("the clients' message", message)
    rows = _check_rows(parts, parts.side.begin(*begun))
    return State(jnp.int32(0), key, state, parts.aggregator.init(message), *rows)


def _begin(parts: _Parts, state: State, data: Any, cohort: Client) -> tuple[tuple, Client]:
    """Return the operands that all clients share, and the cohort with keys, places and steps."""
    if data.population != parts.population:
        raise ValueError(
            f"the algorithm was built for population={parts.population}, the data has {data.population} clients: make them equal"
        )
    cohort = data.locate(cohort._replace(key=client_keys(round_key(state), cohort.id), sums={}))
    return (parts.server.broadcast(state.server), state.round, state.aggregator), _settle_steps(parts.batches, cohort, state.round)


def _settle_steps(batches: Batches, cohort: Client, round: Any) -> Client:
    """Set each client's steps; a client without examples, steps or weight becomes an empty slot."""
    planned = jnp.minimum(cohort.steps, batches.steps_of(cohort.size, round))
    working = (planned > 0) & (cohort.weight > 0)
    return cohort._replace(steps=jnp.where(working, planned, 0), weight=jnp.where(working, cohort.weight, 0))


def _report(parts: _Parts, state: State, who: tuple[Client, Any], sums: dict, metrics: dict, key: Key) -> tuple[dict[str, Any], Info]:
    """Join the metrics of client work and aggregator, and make the server's `Info`, without metrics where these are private."""
    private = parts.aggregator.privacy is not None or hidden(state.own, state.uplink)
    if private:
        check_names(sums, "private client work", INSIDE)
    metrics = _join({name: metric.value() for name, metric in sums.items()}, metrics, "client work and aggregator")
    cohort, arrived = who
    clients = arrived.astype(jnp.result_type(float))
    if private:
        return metrics, Info(state.round, key, {}, jnp.nan * clients)
    return metrics, Info(state.round, key, metrics, clients, cohort)


def _unless_nobody(parts: _Parts, state: State, cohort: Client, after: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
    """Keep the states of server and aggregator as before a round without clients, unless privacy must hide such a round."""
    before = (state.server, state.aggregator)
    counts = jnp.any(cohort.weight > 0) if parts.aggregator.privacy is None else jnp.bool_(True)
    return tree.where(counts, tree.cast_like(after, before), before)


def _count_traffic(cohort: Client, counted: dict[str, Any], sent: Cost, received: Any) -> dict[str, Any]:
    """Count the clients, the bits sent and received, and what the sampler counts."""
    found = {"clients": jnp.sum(cohort.weight > 0, dtype=jnp.float32), "downlink_bits": received}
    found |= {"uplink_bits": sent.payload + sent.side, "uplink_side_bits": sent.side}
    return found | {name: jnp.sum(each).astype(jnp.float32) for name, each in counted.items()}


def _first_rows(parts: _Parts, params: Tree, key: Key, ids: Any) -> tuple[Tree, Tree]:
    """Return own and uplink rows of the clients `ids` before their first round."""
    assert parts.side.rows is not None
    return _check_rows(parts, parts.side.rows(params, parts.server.broadcast(parts.server.init(params)), key, ids))


def _check_rows(parts: _Parts, rows: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
    """Return own and uplink rows, unless they break a guarantee."""
    refuse_common_noise(rows[1], "uplink")
    composable(parts.aggregator.privacy is not None or hidden(*rows), parts.server)
    if parts.aggregator.privacy is not None:
        refuse_memory(() if parts.side.personal else rows[0], rows[1])
    return rows


def _demand(parts: _Parts, state: State, cohort: Client) -> Demand:
    """Count the local steps and the bits that a round asks of each client of a cohort."""
    settled = _settle_steps(parts.batches, cohort, state.round)
    whole = parts.batches.with_passes(settled)
    demand = parts.side.demand((parts.server.broadcast(state.server), state.round, state.aggregator), whole)
    return demand._replace(passes=whole.steps - settled.steps)


def _stacks(parts: _Parts, state: State, data: Any, cohort: Client) -> dict[str, Tree]:
    """Zeros in the shape of what each device holds of its clients: their carries in lanes and, where parts do not add, messages."""
    common, cohort = _begin(parts, state, data, cohort)
    return parts.side.stacks(common, data, cohort, (state.own, state.uplink))


def _join(metrics: dict[str, Any], more: dict[str, Any], whose: str) -> dict[str, Any]:
    """Join two dicts of metrics; refuse a name in both."""
    if twice := metrics.keys() & more.keys():
        raise ValueError(f"{whose} both report {', '.join(sorted(twice))}: rename one")
    return metrics | more


def _check(families: Any, aggregator: Any, server: Any, batches: Any, population: Any, uplink: Any, engine: Any) -> None:
    """Refuse arguments that are no parts of a round."""
    if isinstance(families, list) and uplink is not None:
        raise ValueError("federate: each of several families has its own uplink: give it in fl.Family")
    works = [getattr(family, "work", family) for family in (families if isinstance(families, list) else [families])]
    required = [*(("work", work, ClientWork) for work in works), ("aggregator", aggregator, Aggregator), ("server", server, Server)]
    for name, value, kind in (*required, ("batches", batches, Batches)):
        if not isinstance(value, kind):
            raise TypeError(f"federate: {name} must be a fl.{kind.__name__}, got {value!r}: call the function that makes one")
    for name, value, kind, maker in (
        ("uplink", uplink, optax.GradientTransformation, "such as fl.uplink.top_k(0.1)"),
        ("engine", engine, Engine, "such as fl.packed()"),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"federate: {name} must be a {kind.__name__}, {maker}, got {value!r}: call the function that makes one")
    integer("federate", "population", population, least=1)
