"""The clients' side of a round: from the broadcast to the uploads, and the rows that clients keep."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from fedjax_lite import tree
from fedjax_lite.base import NO_LIMIT, Aggregator, Client, ClientWork, Key, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Build, Engine, Local, Upload, placement
from fedjax_lite.engine.pace import Demand
from fedjax_lite.ledger import Cost, dense_bits, sent
from fedjax_lite.metrics import check_names
from fedjax_lite.streams import HIGH_STREAM, client_keys
from fedjax_lite.uplink.client_metrics import metrics_of
from fedjax_lite.uplink.compressor import apart

__all__ = ["SENT", "Family", "Side", "side_of"]

SENT = "uplink_bits"  # the place, among the sums of metrics, of the bits and of the number of messages that are finite


class Family(NamedTuple):
    """Clients of one architecture; their ids follow on the ids of the family before, from 0."""

    work: ClientWork
    clients: int
    uplink: optax.GradientTransformation | None = None


class Side(NamedTuple):
    """The functions of clients that a round calls. Rows are (own, uplink), common is (shared, round, the aggregator's state)."""

    message: Callable[[Tree, Any, Key], Tree]  # params, shared, key -> a message of zeros as it arrives
    rows: Callable[[Tree, Any, Key, Any], Tree] | None  # params, shared, key, ids -> rows of these clients as they start
    begin: Callable[[Tree, Any, Key], Tree]  # params, shared, key -> rows of the population
    train: Callable[..., tuple[Tree, Tree, dict[str, Any]]]  # common, data, cohort, rows -> part, rows, sums of metrics
    received: Callable[[Any, Client], Any]  # shared, cohort -> bits that it was sent
    stacks: Callable[..., dict[str, Tree]]  # common, data, cohort, rows -> what `Layout.stacks` gives
    demand: Callable[[tuple, Client], Demand]  # common, cohort -> what the round asks of each client
    personal: bool = False  # whether what clients keep between rounds is a model of their own


def side_of(work: Family | Sequence[Family], aggregator: Aggregator, batches: Batches, engine: Engine, population: int) -> Side:
    """The clients' side of a round, for one family, or for several.

    Raises:
        ValueError: for several that are not the population.
    """
    if isinstance(work, Family):
        return _one_family(work, aggregator, batches, engine)
    if sum(family.clients for family in work) != population or any(family.clients < 1 for family in work):
        raise ValueError(f"federate: families of {[family.clients for family in work]} clients are not the population of {population}")
    return _families(work, [_one_family(family, aggregator, batches, engine) for family in work], aggregator.additive)


def _one_family(family: Family, aggregator: Aggregator, batches: Batches, engine: Engine) -> Side:
    """Make the side of clients that all have one family's work and uplink."""
    work, uplink = family.work, apart(family.uplink or optax.identity())

    def message(params, shared, key):
        def arrived(params, shared, key):
            found, one = _first(work, params, shared, key)
            return _sent_up(uplink, found, uplink.init(found), shared, one, jnp.int32(0))[0]

        return tree.zeros(jax.eval_shape(arrived, params, shared, key))

    def rows(params, shared, key, ids):
        own = jax.vmap(work.init, (None, 0))(params, client_keys(jax.random.fold_in(key, HIGH_STREAM), ids))
        state = uplink.init(tree.zeros(jax.eval_shape(lambda *args: _first(work, *args)[0], params, shared, key)))
        return own, jax.tree.map(lambda x: jnp.broadcast_to(x, (*ids.shape, *jnp.shape(x))), state)

    def local(common, data, cohort, rows):
        return _local(work, uplink, aggregator, batches, data, common, tree.take((cohort, rows), jnp.int32(0)))

    def train(common, data, cohort, rows):
        build, sums_in = local(common, data, cohort, rows)
        part, rows, sums = engine.run(build, common, data.examples, batches.with_passes(_pointing(cohort)), rows)
        return part, rows, sums_in(sums)

    def received(shared, cohort):
        return jnp.sum(cohort.weight > 0, dtype=jnp.float32) * _broadcast_bits(shared)

    def demand(common, cohort):
        shared, round, _ = common
        found, one = _first(work, shared.params, shared, cohort.key[0])
        found, row = _sent_up(uplink, tree.zeros(found), uplink.init(found), shared, one, round)
        bits = jnp.float32(aggregator.bits(found)) if aggregator.bits else sum(sent(row, found))
        each = jnp.ones(cohort.id.shape, jnp.float32)
        return Demand(cohort.steps, each * _broadcast_bits(shared), each * bits)

    def stacks(common, data, cohort, rows):
        build, _ = local(common, data, cohort, rows)
        client, like = build(common, data.examples), tree.take((cohort, rows), jnp.int32(0))
        carry = jax.eval_shape(client.start, *like)
        message = jax.eval_shape(client.finish, *like, carry).message
        lanes = engine.lanes(carry, -(-cohort.id.shape[0] // placement.device_count()))
        return {"lanes": tree.stack_of(carry, lanes), "messages": () if client.additive else tree.stack_of(message, cohort.id.shape[0])}

    def begin(params, shared, key):
        return rows(params, shared, key, jnp.arange(family.clients))

    return Side(message, rows, begin, train, received, stacks, demand, work.personal)


class _Families(NamedTuple):
    """Clients of several architectures, one family after another: parts of one cohort, as chunks and devices are."""

    first: list[int]  # the id of each family's first client, and the population
    sides: Sequence[Side]
    additive: bool


def _families(families: Sequence[Family], sides: Sequence[Side], additive: bool) -> Side:
    """Compose the sides of families into the side of all clients."""
    first = [int(start) for start in np.cumsum([0, *(family.clients for family in families)])]
    several = _Families(first, sides, additive)
    message, begin, train = partial(_message_of_all, several), partial(_begin_each, several), partial(_train_each, several)
    personal = all(family.work.personal for family in families)
    stacks, demand = partial(_stack_each, several), partial(_demand_each, several)
    return Side(message, None, begin, train, partial(_receive_each, several), stacks, demand, personal)


def _message_of_all(several: _Families, params: Tree, shared: Any, key: Key) -> Tree:
    """Ask the families for the message of zeros that all of them send."""
    found = [side.message(params[k], _for_family(shared, k), key) for k, side in enumerate(several.sides)]
    shapes = [jax.tree.map(lambda x: (x.shape, str(x.dtype)), one) for one in found]
    for k, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"families: their messages must be alike, family 0 sends {_brief(found[0])}, family {k} {_brief(found[k])}: "
                "give their models the same number of classes, and each its uplink"
            )
    return found[0]


def _begin_each(several: _Families, params: Tree, shared: Any, key: Key) -> Tree:
    """Make the rows that each family's clients start with."""
    rows = []
    for k, side in enumerate(several.sides):
        assert side.rows is not None
        ids = jnp.arange(several.first[k], several.first[k + 1], dtype=jnp.int32)
        rows.append(side.rows(params[k], _for_family(shared, k), key, ids))
    return tuple(zip(*rows, strict=True))


def _train_each(several: _Families, common: tuple, data: Any, cohort: Client, rows: Tree) -> tuple[Tree, Tree, dict[str, Any]]:
    """Train each family's clients of the cohort, and bring parts, rows and sums of metrics together."""
    parts, after, sums = zip(*[side.train(*given) for side, given in _deal(several, common, data, cohort, rows)], strict=True)
    names = list(dict.fromkeys(name for some in sums for name in some))
    total = {name: reduce(lambda x, y: jax.tree.map(jnp.add, x, y), [some[name] for some in sums if name in some]) for name in names}
    join = jnp.add if several.additive else lambda x, y: jnp.concatenate([x, y])
    return reduce(lambda x, y: jax.tree.map(join, x, y), parts), tuple(zip(*after, strict=True)), total


def _receive_each(several: _Families, shared: Any, cohort: Client) -> Any:
    """Count the bits that each family's clients of the cohort are sent."""
    return sum([side.received(_for_family(shared, k), _members(several, cohort, k)) for k, side in enumerate(several.sides)])


def _stack_each(several: _Families, common: tuple, data: Any, cohort: Client, rows: Tree) -> dict[str, Tree]:
    """Collect the stacks of each family."""
    found = [side.stacks(*given) for side, given in _deal(several, common, data, cohort, rows)]
    return {name: tuple(one[name] for one in found) for name in found[0]}


def _demand_each(several: _Families, common: tuple, cohort: Client) -> Demand:
    """Ask each family what its clients of the cohort have to do."""
    shared, *rest = common
    found = [side.demand((_for_family(shared, k), *rest), cohort) for k, side in enumerate(several.sides)]
    family = jnp.searchsorted(jnp.array(several.first[1:]), cohort.id, side="right")
    return jax.tree.map(lambda *each: jnp.choose(family, each, mode="clip"), *found)


def _deal(several: _Families, common: tuple, data: Any, cohort: Client, rows: Tree) -> Iterator[tuple[Side, tuple]]:
    """Deal what is common, the cohort and the rows out to the sides of the families."""
    shared, *rest = common
    for k, (side, mine) in enumerate(zip(several.sides, zip(*rows, strict=True), strict=True)):
        yield side, ((_for_family(shared, k), *rest), data, _members(several, cohort, k), mine)


def _for_family(shared: Any, k: int) -> Any:
    """Take family k's parameters out of what is shared."""
    return shared._replace(params=shared.params[k] if shared.params else ())


def _members(several: _Families, cohort: Client, k: int) -> Client:
    """Take family k's slots of a cohort, no more than it has clients, with their rows in its stack."""
    first, end = several.first[k : k + 2]
    mine = (cohort.id >= first) & (cohort.id < end)
    if cohort.place.device is None:
        order = jnp.argsort(~mine, stable=True)[: end - first]
        cohort, mine = tree.take((cohort, mine), order)
    place = cohort.place._replace(row=jnp.maximum(cohort.id - first, 0))
    return cohort._replace(steps=jnp.where(mine, cohort.steps, 0), weight=jnp.where(mine, cohort.weight, 0), place=place)


def _local(work, uplink, aggregator, batches, data, common, like) -> tuple[Build, Callable]:
    """Make one client's round, from the broadcast to its upload, and the names in its vector of metrics.

    Metrics are one vector inside the engine: a dozen scalars would each be copied, selected and added on their own.
    `like` is a client with its rows, for shapes.
    """

    def one_step(common, client, rows):
        shared, round, _ = common
        own = rows[0]
        carry = work.start(shared, own, client)
        return work.step(shared, own, carry, batches.take(data, client, 0, round))[1], work.finish(shared, own, carry, client)[2]

    of_steps, of_finish = tree.zeros(jax.eval_shape(one_step, common, *like))
    of_uplink = tree.zeros(jax.eval_shape(metrics_of, like[1][1]))
    check_names(of_steps, "the client work's step")
    check_names(of_finish, "the client work's finish", of_steps.keys())
    check_names(of_uplink, "the uplink", of_steps.keys() | of_finish.keys())
    of_finish |= {SENT: (Cost(*jnp.zeros(2, jnp.float32)), jnp.float32(0))} | of_uplink
    nothing, steps_in = ravel_pytree(of_steps)

    def build(common, examples) -> Local:
        shared, round, aggregator_state = common
        held = replace(data, examples=examples)

        def start(client, rows):
            return work.start(shared, rows[0], batches.with_passes(client, -1)), jnp.zeros(nothing.shape, nothing.dtype)

        def step(client, rows, carry, j):
            carry, sums = carry
            batch = batches.take(held, batches.with_passes(client, -1), j, round)
            carry, more = work.step(shared, rows[0], carry, batch)
            return carry, sums + ravel_pytree(more)[0]

        def finish(client, rows, carry):
            (carry, sums), client = carry, batches.with_passes(client, -1)
            message, own, metrics = work.finish(shared, rows[0], carry, client)
            check_kept(own, rows[0])
            message, uplink_row = _sent_up(uplink, message, rows[1], shared, client, round)
            known = aggregator.bits is not None
            bits = Cost(jnp.float32(aggregator.bits(message)), jnp.float32(0)) if known else sent(uplink_row, message)
            # What made a message NaN is in the client's losses and in what it would keep, too: a rule that drops the one must not meet
            # the others.
            counts = jnp.isfinite(tree.squared_norm(message))
            metrics = tree.zero_where_not(counts, steps_in(sums) | metrics | metrics_of(uplink_row))
            rows = tree.where(counts, tree.cast_like((own, uplink_row), rows), rows)
            return Upload(message, rows, ravel_pytree(metrics | {SENT: (bits, counts.astype(jnp.float32))})[0])

        def collect(messages, cohort):
            return aggregator.collect(messages, batches.with_passes(cohort, -1), aggregator_state)

        return Local(start, step, finish, collect, aggregator.additive, batches.most_batches(data))

    return build, ravel_pytree(of_steps | of_finish)[1]


def _broadcast_bits(shared: Any) -> float:
    """Count the bits that one client is sent of a broadcast."""
    rate = () if isinstance(shared.rate, float | int) else shared.rate
    return dense_bits((shared.params, rate, shared.extra, jax.tree.map(lambda x: x[0], shared.each)))


def _pointing(cohort: Client) -> Client:
    """Let a cohort point to its clients' rows; an empty slot points past the end, where nothing is written."""
    row = cohort.id if cohort.place.row is None else cohort.place.row
    return cohort._replace(place=cohort.place._replace(row=jnp.where(cohort.weight > 0, row, NO_LIMIT)))


def _sent_up(uplink, message, row, shared, client, round) -> tuple[Tree, Tree]:
    """Return a message after the uplink, and the uplink's state."""
    key = jax.random.fold_in(client.key, 2**32 - 1)
    beside = {"client": client, "public": shared.public}
    return uplink.update(message, row, shared.params, round=round, key=key, weight=client.weight, **beside)


def _first(work: ClientWork, params: Tree, shared: Any, key: Key) -> tuple[Tree, Client]:
    """Return the message of a client that takes no step, and the client."""
    one = Client(jnp.int32(0), key, jnp.int32(1), jnp.int32(0), jnp.ones(()))
    own = work.init(params, key)
    return work.finish(shared, own, work.start(shared, own, one), one)[0], one


def check_kept(own: Tree, before: Tree) -> None:
    """Refuse rows whose arrays differ from the rows before in shape or dtype.

    Raises:
        ValueError: with both.
    """
    shapes = [(jax.tree.structure(each), [jnp.shape(x) for x in jax.tree.leaves(each)]) for each in (own, before)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the client work's finish returns an own of {shapes[0]}, its init made {shapes[1]}: make them the same")


def _brief(message: Tree) -> list[tuple[int, ...]]:
    """Write a message's shapes for an error."""
    return [x.shape for x in jax.tree.leaves(message)]
