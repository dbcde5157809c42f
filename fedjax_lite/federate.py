"""One federated round. It knows no algorithm by name: every decision comes in as a function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from fedjax_lite import tree
from fedjax_lite.base import (
    HIGH_STREAM,
    NO_LIMIT,
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
from fedjax_lite.engine import Build, Engine, Local, Upload, packed, placement
from fedjax_lite.privacy.compose import composable, hidden, refuse_memory
from fedjax_lite.schedules import refuse_common_noise
from fedjax_lite.uplink.ledger import Sent, dense_bits, sent

__all__ = ["federate"]

_SENT = "uplink_bits"  # its place among the sums of metrics


def federate(
    work: ClientWork,
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
        work: what one client does, for instance `fl.sgd_work(...)`.
        aggregator: how messages become one, for instance `fl.aggregators.weighted_mean()`.
        server: what is broadcast and how an aggregate is applied, for instance `fl.optimizer_server(optax.sgd(1.0))`.
        batches: which examples each local step sees.
        population: how many clients there are; sizes the state that clients keep.
        uplink: an optax transformation of one client's message; its state is the client's own. It is given the keywords
            `round`, `key` and `weight`.
        engine: `fl.packed(lanes)` (default), `fl.padded()` or `fl.sequential()`; the same results from all.

    Returns:
        An `Algorithm`: `init(params, key) -> State`, `round(state, data, cohort) -> (State, metrics)`, `params(state)`.
        Metrics are float scalars: those of the client work and the aggregator, "clients" (how many took part), "update_norm"
        (how far the global model moved), and sums over the clients that took part: "uplink_bits" (what they sent, as `fl.uplink`
        counts it), "uplink_side_bits" (the positions, scales and seeds in it), "downlink_bits" (the parameters they were sent).
        A cohort without clients leaves the model as it is, but for the noise of a private aggregator.

    Raises:
        TypeError, ValueError: for parts that are none, a population that is not the data's, metrics reported twice.
    """
    for name, value, kind in (
        ("work", work, ClientWork),
        ("aggregator", aggregator, Aggregator),
        ("server", server, Server),
        ("batches", batches, Batches),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"federate: {name} must be a fl.{kind.__name__}, got {value!r}: call the function that makes one")
    if population < 1:
        raise ValueError(f"population must be at least 1, got {population}")
    engine = packed() if engine is None else engine
    uplink = optax.with_extra_args_support(optax.identity() if uplink is None else uplink)
    params_of = server.params or (lambda state: server.broadcast(state).params)

    def init(params: Tree, key: Key) -> State:
        params = jax.tree.map(jnp.asarray, params)
        state = server.init(params)
        message = _message_of(work, server, params, state, key, uplink)
        return State(jnp.int32(0), key, state, aggregator.init(message), *first_rows(params, key, jnp.arange(population)))

    def first_rows(params: Tree, key: Key, ids: Any) -> tuple[Tree, Tree]:
        """What these clients keep, own and uplink state, before they first take part."""
        own = jax.vmap(work.init, (None, 0))(params, client_keys(jax.random.fold_in(key, HIGH_STREAM), ids))
        uplink_state = uplink.init(_message_of(work, server, params, server.init(params), key))
        refuse_common_noise(uplink_state, "uplink")
        composable(aggregator.privacy is not None or hidden(own, uplink_state), server)
        if aggregator.privacy is not None:
            refuse_memory(own, uplink_state)
        return own, jax.tree.map(lambda x: jnp.broadcast_to(x, (*ids.shape, *jnp.shape(x))), uplink_state)

    def started(state: State, data: Any, cohort: Client):
        """What is common to all clients, the cohort with keys, steps and rows, and what each client does."""
        if data.population != population:
            raise ValueError(
                f"the algorithm was built for population={population}, the data has {data.population} clients: make them equal"
            )
        cohort = data.locate(cohort._replace(key=client_keys(round_key(state), cohort.id)))
        cohort = steps(cohort, state.round)
        row = cohort.id if cohort.row is None else cohort.row
        rows = tree.take((state.own, state.uplink), row)
        common = (server.broadcast(state.server), state.round, state.aggregator)
        return common, cohort, row, rows, *_local(work, uplink, aggregator, batches, data, common, tree.take((cohort, rows), jnp.int32(0)))

    def round(state: State, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
        key = aggregate_key(round_key(state))
        common, cohort, row, rows, build, sums_in = started(state, data, cohort)

        part, rows, sums = engine.run(build, common, data.examples, cohort, rows)
        sums = sums_in(sums)
        bits = sums.pop(_SENT)
        aggregate, aggregator_state, metrics = aggregator.finish(part, state.aggregator, jax.random.fold_in(key, 0))
        if twice := sums.keys() & metrics.keys():
            raise ValueError(f"client work and aggregator both report {', '.join(sorted(twice))}: rename one")
        metrics = {name: metric.value() for name, metric in sums.items()} | metrics
        private = aggregator.privacy is not None or hidden(state.own, state.uplink)
        info = Info(state.round, jax.random.fold_in(key, 1), {} if private else metrics)
        server_state = server.update(aggregate, state.server, info)

        present = cohort.weight > 0
        before = (state.server, state.aggregator)
        after = tree.cast_like((server_state, aggregator_state), before)
        counts = jnp.any(present) if aggregator.privacy is None else jnp.bool_(True)
        server_state, aggregator_state = tree.where(counts, after, before)
        row = jnp.where(present, row, NO_LIMIT)  # an empty slot writes past the end: nowhere
        own, uplink_rows = tree.put((state.own, state.uplink), row, rows)
        moved = optax.tree.sub(params_of(server_state), params_of(state.server))
        clients = jnp.sum(present, dtype=jnp.float32)
        received = clients * dense_bits(common[0].params)
        metrics |= {"clients": clients, "update_norm": optax.tree.norm(moved), "downlink_bits": received}
        metrics |= {"uplink_bits": bits.payload + bits.side, "uplink_side_bits": bits.side}
        if cohort.left_out is not None:
            metrics["left_out"] = jnp.sum(cohort.left_out).astype(jnp.float32)
        return State(state.round + 1, state.key, server_state, aggregator_state, own, uplink_rows), metrics

    def steps(cohort: Client, round: Any) -> Client:
        """Settle each client's steps; one that has no examples, no steps or no weight is an empty slot."""
        planned = jnp.minimum(cohort.steps, batches.steps_of(cohort.size, round))
        working = (planned > 0) & (cohort.weight > 0)
        return cohort._replace(steps=jnp.where(working, planned, 0), weight=jnp.where(working, cohort.weight, 0))

    def stacks(state: State, data: Any, cohort: Client) -> dict[str, Tree]:
        """Zeros in the shape of what each device holds of its clients: their carries in lanes and, where parts do not add, messages."""
        common, cohort, _, rows, build, _ = started(state, data, cohort)
        local, like = build(common, data.examples), tree.take((cohort, rows), jnp.int32(0))
        carry = jax.eval_shape(local.start, *like)
        message = jax.eval_shape(local.finish, *like, carry).message
        lanes = engine.lanes(carry, -(-cohort.id.shape[0] // placement.number()))
        return {"lanes": tree.stack_of(carry, lanes), "messages": () if local.additive else tree.stack_of(message, cohort.id.shape[0])}

    return Algorithm(init, round, lambda state: params_of(state.server), Layout(steps, first_rows, stacks), aggregator.privacy)


def _local(work, uplink, aggregator, batches, data, common, like) -> tuple[Build, Callable]:
    """One client's round, from the broadcast to its upload, and what its vector of metrics holds.

    Metrics are one vector inside the engine: a dozen scalars would each be copied, selected and added on their own.
    `like` is a client with its rows, for shapes.
    """

    def one_step(common, client, rows):
        shared, round, _ = common
        carry = work.start(shared, rows[0], client)
        return work.step(carry, batches.take(data, client, 0, round))[1], work.finish(shared, carry, client)[2]

    of_steps, of_finish = tree.zeros(jax.eval_shape(one_step, common, *like))
    of_finish |= {_SENT: Sent(*jnp.zeros(3, jnp.float32))}
    nothing, steps_in = ravel_pytree(of_steps)

    def build(common, examples) -> Local:
        shared, round, aggregator_state = common
        held = replace(data, examples=examples)

        def start(client, rows):
            return work.start(shared, rows[0], client), jnp.zeros(nothing.shape, nothing.dtype)

        def step(client, carry, j):
            carry, sums = carry
            carry, more = work.step(carry, batches.take(held, client, j, round))
            return carry, sums + ravel_pytree(more)[0]

        def finish(client, rows, carry):
            carry, sums = carry
            message, own, metrics = work.finish(shared, carry, client)
            message, uplink_row = _sent_up(uplink, message, rows[1], shared, client, round)
            metrics |= {_SENT: sent(uplink_row, message)}
            return Upload(message, (own, uplink_row), ravel_pytree(steps_in(sums) | metrics)[0])

        def collect(messages, cohort):
            return aggregator.collect(messages, cohort, aggregator_state)

        return Local(start, step, finish, collect, aggregator.additive, batches.most_steps(data))

    return build, ravel_pytree(of_steps | of_finish)[1]


def _sent_up(uplink, message, row, shared, client, round) -> tuple[Tree, Tree]:
    """A message as it arrives, and what the uplink keeps of it."""
    key = jax.random.fold_in(client.key, 2**32 - 1)
    public = getattr(shared, "public", None)
    return uplink.update(message, row, shared.params, round=round, key=key, weight=client.weight, client=client, public=public)


def _message_of(work, server, params, state, key, uplink=None) -> Tree:
    """A message of zeros, in the shape of one from a client that takes no step, before an uplink or after it."""

    def message(params, state, key):
        one = Client(jnp.int32(0), key, jnp.int32(1), jnp.int32(0), jnp.ones(()))
        shared = server.broadcast(state)
        found = work.finish(shared, work.start(shared, work.init(params, key), one), one)[0]
        return found if uplink is None else _sent_up(uplink, found, uplink.init(found), shared, one, jnp.int32(0))[0]

    return tree.zeros(jax.eval_shape(message, params, state, key))
