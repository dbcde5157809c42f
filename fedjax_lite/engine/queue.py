"""A queue of clients that runs through a stack of lanes until it is dry."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedjax_lite import forms, tree
from fedjax_lite.base import NO_LIMIT, Client, Tree
from fedjax_lite.engine.contract import Local, Outcome, Upload, total
from fedjax_lite.engine.rows import row_of

OUTSIDE = -1  # the step of a client that has a lane and has not entered it


class _Lanes(NamedTuple):
    """What is in the lanes."""

    carry: Tree  # [lanes, ...]; () where no lane keeps a client from one advance to the next
    slot: Int[Array, " lanes"]  # the cohort's slot in each lane; the number of clients where the lane is idle
    step: Int[Array, " lanes"]


class _State(NamedTuple):
    """What is in the lanes, and what has come out of them."""

    lanes: _Lanes
    taken: Int[Array, ""]  # how many clients of the queue have been taken
    part: Tree  # the sum of parts, or where parts do not add, the messages [clients, ...]
    rows: Tree  # those of all clients
    metrics: Tree


def run_dry(local: Local, cohort: Client, rows: Tree, lanes: Callable[[Tree], int], step_by_step: bool) -> Outcome:
    """Run the queue dry.

    Args:
        lanes: what one client carries -> how many lanes there are, if there are as many clients.
        step_by_step: look for finished lanes after every step, instead of stepping until the next lane is done. Where a
            study's runs share the loop, one run's lanes need not wait for another's.
    """
    first = jax.tree.map(lambda x: x[0], (cohort, rows))
    carry = jax.eval_shape(local.start, *first)
    width = min(cohort.id.shape[0], lanes(carry))
    queue = jnp.argsort(-cohort.steps, stable=True).astype(jnp.int32)
    waiting = jnp.sum(cohort.steps > 0, dtype=jnp.int32)
    work = _Work(local, cohort, queue, waiting, width, step_by_step)
    if width == 1 and not step_by_step:
        advance = _advance_one
    elif forms.cpu() and jax.tree.leaves(rows):
        # Rows are written one after another on a CPU in any case; where none are kept, lanes that are done together upload faster together.
        advance = _advance_then_one_by_one
    else:
        advance = _advance_together
    state = _begin(work, rows, jax.eval_shape(local.finish, *first, carry))
    state = state if advance is _advance_one else state._replace(lanes=_enter(work, rows, state.lanes.slot))
    state = jax.lax.while_loop(lambda state: jnp.any(_busy(work, state.lanes)), partial(advance, work), state)
    return state.part if local.additive else local.collect(state.part, cohort), state.rows, state.metrics


class _Work(NamedTuple):
    """What passes through the lanes."""

    local: Local
    cohort: Client
    queue: Int[Array, " clients"]  # slots of the cohort, the longest first
    waiting: Int[Array, ""]  # how many of them take any step
    width: int  # how many lanes there are
    step_by_step: bool


def _begin(work: _Work, rows: Tree, shapes: Upload) -> _State:
    """Give the lanes the first slots of the queue; of uploads in these shapes none has come."""
    stack = jax.tree.map(lambda s: jax.ShapeDtypeStruct((len(work.queue), *s.shape), s.dtype), shapes.message)
    slots = _next_slots(work, jnp.arange(work.width, dtype=jnp.int32))
    return _State(
        lanes=_empty(slots),
        taken=jnp.int32(work.width),
        part=tree.zeros(jax.eval_shape(work.local.collect, stack, work.cohort) if work.local.additive else stack),
        rows=rows,
        metrics=tree.zeros(shapes.metrics),
    )


# In a loop that reads rows of clients who enter after it has written those of clients who are done, the compiler may join the two, and then
# copies the rows of all clients for each. So reading is at the beginning of a loop that writes, or in a loop of its own.


def _advance_one(work: _Work, state: _State) -> _State:
    """Take the next client of the queue through the only lane."""
    state = _train(work, state._replace(lanes=_enter(work, state.rows, state.lanes.slot)))
    state, slots = _upload(work, state, state.lanes, jnp.array([True]))
    return state._replace(lanes=_empty(slots))


def _advance_then_one_by_one(work: _Work, state: _State) -> _State:
    """Step until some lane is done; upload clients that are done, and then let clients enter, one after another."""

    def upload(state):
        lane = jnp.argmax(_done(work, state.lanes))[None]
        after, slot = _upload(work, state, tree.take(state.lanes, lane), jnp.array([True]))
        return after._replace(
            lanes=state.lanes._replace(slot=state.lanes.slot.at[lane].set(slot), step=state.lanes.step.at[lane].set(OUTSIDE))
        )

    def enter(state):
        lane = jnp.argmax(state.lanes.step == OUTSIDE)[None]
        return state._replace(lanes=tree.put(state.lanes, lane, _enter(work, state.rows, state.lanes.slot[lane])))

    state = jax.lax.while_loop(lambda state: jnp.any(_done(work, state.lanes)), upload, _train(work, state))
    return jax.lax.while_loop(lambda state: jnp.any(state.lanes.step == OUTSIDE), enter, state)


def _advance_together(work: _Work, state: _State) -> _State:
    """Step until some lane is done, upload the clients that are, and put the next ones in their lanes."""
    state = _train(work, state)
    done = _done(work, state.lanes)
    after, slots = _upload(work, state, state.lanes, done)
    return after._replace(lanes=tree.where(done, _enter(work, state.rows, slots), state.lanes))


def _train(work: _Work, state: _State) -> _State:
    """Step until some lane is done, or once."""
    lanes = state.lanes
    trained, trained_rows = _gather(work, state.rows, lanes.slot)
    # An idle lane trains on, on a client of no interest: nothing of it is ever uploaded, and no select is paid.
    steps = 1 if work.step_by_step else jnp.min(jnp.where(_busy(work, lanes), trained.steps - lanes.step, NO_LIMIT))

    def train(client, rows, carry, step):
        return jax.lax.fori_loop(0, steps, lambda j, carry: work.local.step(client, rows, carry, step + j), carry)

    carry = _lanewise(lanes, train)(trained, trained_rows, lanes.carry, lanes.step)
    return state._replace(lanes=lanes._replace(carry=carry, step=lanes.step + steps))


def _upload(work: _Work, state: _State, lanes: _Lanes, done: Bool[Array, " lanes"]) -> tuple[_State, Int[Array, " lanes"]]:
    """Upload the clients in these lanes that are done, and return their lanes' next slots; the others keep theirs."""
    trained, trained_rows = _gather(work, state.rows, lanes.slot)
    upload = _lanewise(lanes, work.local.finish)(trained, trained_rows, lanes.carry)
    if work.local.additive:
        finished = trained._replace(weight=jnp.where(done, trained.weight, 0))
        part = jax.tree.map(jnp.add, state.part, work.local.collect(upload.message, finished))
    else:
        part = tree.put(state.part, jnp.where(done, lanes.slot, len(work.queue)), upload.message)

    order = state.taken + jnp.cumsum(done, dtype=jnp.int32) - 1
    after = state._replace(
        taken=state.taken + jnp.sum(done, dtype=jnp.int32),
        part=part,
        rows=tree.put(state.rows, jnp.where(done, row_of(trained), NO_LIMIT), upload.rows),
        metrics=jax.tree.map(jnp.add, state.metrics, total(upload.metrics, done)),
    )
    return after, jnp.where(done, _next_slots(work, order), lanes.slot)


def _enter(work: _Work, rows: Tree, slots: Int[Array, " lanes"]) -> _Lanes:
    """Make lanes in which the clients of these slots begin."""
    begun = _empty(slots)
    return begun._replace(carry=_lanewise(begun, work.local.start)(*_gather(work, rows, slots)))


def _empty(slots: Int[Array, " lanes"]) -> _Lanes:
    """Make lanes for the clients of these slots, who have not entered."""
    return _Lanes((), slots, jnp.zeros_like(slots))


def _busy(work: _Work, lanes: _Lanes) -> Bool[Array, " lanes"]:
    """Tell which of these lanes have a client."""
    return lanes.slot < len(work.queue)


def _done(work: _Work, lanes: _Lanes) -> Bool[Array, " lanes"]:
    """Tell which of these lanes have a client that has taken all of its steps."""
    return _busy(work, lanes) & (lanes.step >= tree.take(work.cohort.steps, lanes.slot))


def _next_slots(work: _Work, positions: Int[Array, " lanes"]) -> Int[Array, " lanes"]:
    """Look up the slots at positions of the queue; past its end, the number of clients."""
    return jnp.where(positions < work.waiting, tree.take(work.queue, positions), len(work.queue))


def _gather(work: _Work, rows: Tree, slots: Int[Array, " lanes"]) -> tuple[Client, Tree]:
    """Fetch the clients in these slots, and their rows."""
    clients = tree.take(work.cohort, slots)
    return clients, tree.take(rows, row_of(clients))


def _lanewise(lanes: _Lanes, fn: Callable) -> Callable:
    """Make a function of one client one of these lanes."""

    def alone(*stacks):
        return jax.tree.map(lambda x: jnp.asarray(x)[None], fn(*jax.tree.map(lambda x: x[0], stacks)))

    return alone if len(lanes.slot) == 1 else jax.vmap(fn)  # a dot with a batch axis, even of 1, is laid out worse than one without
