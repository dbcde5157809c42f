"""The packed engine: a stack of lanes that clients pass through."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fedjax_lite import forms, tree
from fedjax_lite.base import NO_LIMIT, Client, Tree
from fedjax_lite.engine.contract import Engine, Local, Upload, total
from fedjax_lite.engine.devices import over_devices
from fedjax_lite.engine.transforms import when_vmapped
from fedjax_lite.engine.tune import fastest
from fedjax_lite.refuse import is_count

CANDIDATES = (1, 4, 16, 64, 256, 1024)


class _Lanes(NamedTuple):
    """What is in the lanes, and what has come out of them."""

    carry: Tree  # [lanes, ...]
    slot: Int[Array, " lanes"]  # the cohort's slot in each lane; the number of clients where the lane is idle
    step: Int[Array, " lanes"]
    taken: Int[Array, ""]  # how many clients of the queue have been taken
    part: Tree  # the sum of parts, or where parts do not add, the messages [clients, ...]
    rows: Tree  # [clients, ...]
    metrics: Tree


def packed(lanes: int | str | None = None) -> Engine:
    """A stack of `lanes` clients in training; a lane that finishes its client uploads and takes the next of the queue.

    However ragged the cohort, lanes are busy until the queue is empty; longest clients first, so that they run dry together.
    Where the aggregator is additive, memory does not grow with the cohort. In a vmapped study the runs go one after another on
    a CPU, where small stacks stay in the cache, and elsewhere all at once, by default with a sixteenth of the lanes each.

    Args:
        lanes: rows of the stack; by default from the backend and the size of what a client carries. "auto" measures a few
            numbers while the program is traced, which takes seconds, and keeps the fastest for all rounds of this engine.

    >>> import fedjax_lite as fl
    >>> [fl.packed(lanes=4).lanes(jnp.zeros(3), clients) for clients in (2, 10)]  # so many at once, of 2 and of 10
    [2, 4]
    """
    if lanes is not None and not (isinstance(lanes, str) and lanes == "auto") and not is_count(lanes, 1):
        raise ValueError(f'lanes must be at least 1, or "auto", got {lanes!r}')
    measured: dict[Any, int] = {}

    def run(build, common, examples, cohort, rows):
        width = _measured(measured, build(common, examples), cohort, rows) if isinstance(lanes, str) else lanes

        def train(step_by_step):
            engine = over_devices(lambda local, cohort, rows: _train(local, cohort, rows, width, step_by_step))
            return partial(engine, build)

        return when_vmapped(train(False), None if forms.cpu() else train(True))(common, examples, cohort, rows)

    def width_of(carry, clients):
        return min(clients, max(CANDIDATES) if isinstance(lanes, str) else lanes or default_lanes(carry))

    return Engine(run, width_of)


def _train(local: Local, cohort: Client, rows: Tree, lanes: int | None, step_by_step: bool) -> tuple[Tree, Tree, Tree]:
    """Run the queue dry.

    Args:
        step_by_step: look for finished lanes after every step, instead of stepping until the next lane is done. Where a
            study's runs share the loop, one run's lanes need not wait for another's.
    """
    first = jax.tree.map(lambda x: x[0], (cohort, rows))
    carry = jax.eval_shape(local.start, *first)
    width = min(cohort.id.shape[0], lanes or max(1, default_lanes(carry) // (16 if step_by_step else 1)))
    queue = jnp.argsort(-cohort.steps, stable=True).astype(jnp.int32)
    waiting = jnp.sum(cohort.steps > 0, dtype=jnp.int32)
    work = _Work(local, cohort, rows, queue, waiting, width, step_by_step)
    state = _begin(work, jax.eval_shape(local.finish, *first, carry))
    state = jax.lax.while_loop(lambda state: jnp.any(_busy(work, state)), partial(_advance, work), state)
    return state.part if local.additive else local.collect(state.part, cohort), state.rows, state.metrics


class _Work(NamedTuple):
    """What passes through the lanes."""

    local: Local
    cohort: Client
    rows: Tree  # [clients, ...]
    queue: Int[Array, " clients"]  # slots of the cohort, the longest first
    waiting: Int[Array, ""]  # how many of them take any step
    width: int  # how many lanes there are
    step_by_step: bool

    @property
    def lanewise(self) -> Callable:
        """What makes a function of one client one of all lanes."""
        return _alone if self.width == 1 else jax.vmap


def _begin(work: _Work, shapes: Upload) -> _Lanes:
    """Put the first of the queue in the lanes; of uploads in these shapes none has come."""
    stack = jax.tree.map(lambda s: jax.ShapeDtypeStruct((len(work.queue), *s.shape), s.dtype), shapes.message)
    slots = _next_slots(work, jnp.arange(work.width, dtype=jnp.int32))
    return _Lanes(
        carry=work.lanewise(work.local.start)(*_gather(work, slots)),
        slot=slots,
        step=jnp.zeros(work.width, jnp.int32),
        taken=jnp.int32(work.width),
        part=tree.zeros(jax.eval_shape(work.local.collect, stack, work.cohort) if work.local.additive else stack),
        rows=work.rows,
        metrics=tree.zeros(shapes.metrics),
    )


def _advance(work: _Work, state: _Lanes) -> _Lanes:
    """Step until some lane is done, and flush those that are."""
    trained, trained_rows = _gather(work, state.slot)
    # An idle lane trains on, on a client of no interest: nothing of it is ever uploaded, and no select is paid.
    steps = 1 if work.step_by_step else jnp.min(jnp.where(_busy(work, state), trained.steps - state.step, NO_LIMIT))

    def train(client, rows, carry, step):
        return jax.lax.fori_loop(0, steps, lambda j, carry: work.local.step(client, rows, carry, step + j), carry)

    carry = work.lanewise(train)(trained, trained_rows, state.carry, state.step)
    state = state._replace(carry=carry, step=state.step + steps)
    return _flush(work, state, _busy(work, state) & (state.step >= trained.steps))


def _flush(work: _Work, state: _Lanes, done: Bool[Array, " lanes"]) -> _Lanes:
    """Upload the clients that are done and put the next ones in their lanes."""
    trained, trained_rows = _gather(work, state.slot)
    upload = work.lanewise(work.local.finish)(trained, trained_rows, state.carry)
    slot = jnp.where(done, state.slot, len(work.queue))
    if work.local.additive:
        finished = trained._replace(weight=jnp.where(done, trained.weight, 0))
        part = jax.tree.map(jnp.add, state.part, work.local.collect(upload.message, finished))
    else:
        part = tree.put(state.part, slot, upload.message)

    order = state.taken + jnp.cumsum(done, dtype=jnp.int32) - 1
    entering = jnp.where(done, _next_slots(work, order), state.slot)
    fresh = work.lanewise(work.local.start)(*_gather(work, entering))
    all_done = work.width == 1 and not work.step_by_step
    return _Lanes(
        carry=fresh if all_done else tree.where(done, fresh, state.carry),
        slot=entering,
        step=jnp.where(done, 0, state.step),
        taken=state.taken + jnp.sum(done, dtype=jnp.int32),
        part=part,
        rows=tree.put(state.rows, slot, upload.rows),
        metrics=jax.tree.map(jnp.add, state.metrics, total(upload.metrics, done)),
    )


def _busy(work: _Work, state: _Lanes) -> Bool[Array, " lanes"]:
    """Tell which lanes in this state have a client."""
    return state.slot < len(work.queue)


def _next_slots(work: _Work, positions: Int[Array, " lanes"]) -> Int[Array, " lanes"]:
    """Look up the slots at positions of the queue; past its end, the number of clients."""
    return jnp.where(positions < work.waiting, tree.take(work.queue, positions), len(work.queue))


def _gather(work: _Work, slots: Int[Array, " lanes"]) -> tuple[Client, Tree]:
    """Fetch the clients in these slots, and their rows."""
    return tree.take(work.cohort, slots), tree.take(work.rows, slots)


def _measured(known: dict[Any, int], local: Local, cohort: Client, rows: Tree) -> int:
    """The fastest number of lanes; measured once for each shape of client and cohort."""
    carries = jax.eval_shape(jax.vmap(local.start), cohort, rows)
    key = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(carries))
    if key not in known:
        candidates = [n for n in CANDIDATES if n <= cohort.id.shape[0]]
        known[key] = fastest(lambda lanes: lambda cohort, rows: _train(local, cohort, rows, lanes, False), cohort, rows, candidates)
    return known[key]


def default_lanes(carry: Tree) -> int:
    """How many lanes keep the device busy: on CPU what stays in cache, elsewhere what a few gigabytes hold."""
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry))
    budget, most = (2**17, 8) if forms.cpu() else (2**31, 1024)
    return max(1, min(most, budget // max(size, 1)))


def _alone(fn: Callable) -> Callable:
    """`jax.vmap` for a single lane: a dot with a batch axis, even of 1, is laid out worse than one without."""

    def run(*stacks):
        return jax.tree.map(lambda x: jnp.asarray(x)[None], fn(*jax.tree.map(lambda x: x[0], stacks)))

    return run
