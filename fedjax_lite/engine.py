"""Engines: how the clients of a cohort are laid out on a device. All give the same result.

An engine sees one client's round as three functions and a way to reduce groups of uploads. It alone owns the clients axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import Client, Tree

__all__ = ["Engine", "Local", "padded", "packed", "sequential"]


class Upload(NamedTuple):
    """What one client hands back: its message, its new rows of the population's state, its metrics."""

    message: Tree
    rows: Tree
    metrics: Tree


class Local(NamedTuple):
    """One client's round, and how groups of uploads become one part."""

    start: Callable[[Client, Tree], Tree]  # client, rows -> carry
    step: Callable[[Client, Tree, Array], Tree]  # client, carry, local step -> carry
    finish: Callable[[Client, Tree, Tree], Upload]  # client, rows, carry -> upload
    collect: Callable[[Tree, Client], Tree]  # stack of messages, cohort -> part
    additive: bool  # whether parts of groups add up
    most_steps: int | None  # static bound on a client's steps; None where it is only known at run time


Engine = Callable[[Local, Client, Tree], tuple[Tree, Tree, Tree]]  # local, cohort, rows -> part, rows, metrics


def padded(most_steps: int | None = None) -> Engine:
    """All clients at once, each step vmapped over the cohort, as many steps as the largest client takes.

    Wastes the steps of small clients; is the one engine that can be differentiated in reverse (a scan of fixed length).

    Args:
        most_steps: static bound on local steps; clients stop there. Needed only where epochs are scheduled, since then
            the data alone does not tell it.
    """
    if most_steps is not None and most_steps < 1:
        raise ValueError(f"most_steps must be at least 1, got {most_steps}")

    def run(local, cohort, rows):
        bounds = [bound for bound in (local.most_steps, most_steps) if bound is not None]
        if not bounds:
            raise ValueError("padded() needs a static bound on local steps where epochs are scheduled: padded(most_steps=...)")
        length = min(bounds)
        cohort = cohort._replace(steps=jnp.minimum(cohort.steps, length))

        def body(carry, j):
            stepped = jax.vmap(local.step, (0, 0, None))(cohort, carry, j)
            return tree.where(j < cohort.steps, stepped, carry), None

        carry = jax.vmap(local.start)(cohort, rows)
        carry, _ = jax.lax.scan(body, carry, jnp.arange(length, dtype=jnp.int32))
        upload = jax.vmap(local.finish)(cohort, rows, carry)
        return local.collect(upload.message, cohort), upload.rows, _total(upload.metrics, cohort.weight > 0)

    return run


def sequential() -> Engine:
    """One client after another: the plain oracle, and the engine to debug with.

    Under `jax.disable_jit()` an exception inside a client's training tells the client and the step it came from.
    """

    def run(local, cohort, rows):
        def one(argument):
            client, row = argument

            def step(j, carry):
                try:
                    return local.step(client, carry, jnp.asarray(j, jnp.int32))
                except Exception as error:
                    if not isinstance(client.id, jax.core.Tracer):
                        error.add_note(f"in client {int(client.id)}, local step {int(j)}")
                    raise

            carry = jax.lax.fori_loop(0, client.steps, step, local.start(client, row))
            return local.finish(client, row, carry)

        upload = jax.lax.map(one, (cohort, rows))
        return local.collect(upload.message, cohort), upload.rows, _total(upload.metrics, cohort.weight > 0)

    return run


class _Packed(NamedTuple):
    """The packed engine's loop: what is in the lanes, and what has come out of them."""

    carry: Tree  # [lanes, ...]
    slot: Int[Array, " lanes"]  # the cohort's slot in each lane; the number of clients where the lane is idle
    step: Int[Array, " lanes"]
    taken: Int[Array, ""]  # how many clients of the queue have been taken
    part: Tree  # the sum of parts, or where parts do not add, the messages [clients, ...]
    rows: Tree  # [clients, ...]
    metrics: Tree


def packed(lanes: int | None = None) -> Engine:
    """A stack of `lanes` clients in training; a lane that finishes its client uploads and takes the next of the queue.

    However ragged the cohort, lanes are busy until the queue is empty; longest clients first, so that they run dry together.
    Where the aggregator is additive, memory does not grow with the cohort.

    Args:
        lanes: rows of the stack; by default from the backend and the size of what a client carries.
    """
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")

    def run(local, cohort, rows):
        clients = cohort.id.shape[0]
        first = jax.tree.map(lambda x: x[0], (cohort, rows))
        carry = jax.eval_shape(local.start, *first)
        width = min(clients, default_lanes(carry) if lanes is None else lanes)
        working = cohort.steps > 0
        queue = jnp.argsort(-cohort.steps, stable=True).astype(jnp.int32)
        waiting = jnp.sum(working, dtype=jnp.int32)

        def next_slots(positions):
            return jnp.where(positions < waiting, tree.take(queue, positions), clients)

        def gather(slots):
            return tree.take(cohort, slots), tree.take(rows, slots)

        def flush(state, done):
            """Upload the clients that are done and put the next ones in their lanes."""
            trained, trained_rows = gather(state.slot)
            upload = jax.vmap(local.finish)(trained, trained_rows, state.carry)
            slot = jnp.where(done, state.slot, clients)
            if local.additive:
                finished = trained._replace(weight=jnp.where(done, trained.weight, 0))
                part = jax.tree.map(jnp.add, state.part, local.collect(upload.message, finished))
            else:
                part = tree.put(state.part, slot, upload.message)
            metrics = jax.tree.map(jnp.add, state.metrics, _total(upload.metrics, done))

            order = state.taken + jnp.cumsum(done, dtype=jnp.int32) - 1
            entering = jnp.where(done, next_slots(order), state.slot)
            fresh = jax.vmap(local.start)(*gather(entering))
            return _Packed(
                carry=tree.where(done, fresh, state.carry),
                slot=entering,
                step=jnp.where(done, 0, state.step),
                taken=state.taken + jnp.sum(done, dtype=jnp.int32),
                part=part,
                rows=tree.put(state.rows, slot, upload.rows),
                metrics=metrics,
            )

        def body(state):
            trained = tree.take(cohort, state.slot)
            # An idle lane trains on, on a client of no interest: nothing of it is ever uploaded, and no select is paid.
            state = state._replace(carry=jax.vmap(local.step)(trained, state.carry, state.step), step=state.step + 1)
            done = (state.slot < clients) & (state.step >= trained.steps)
            return jax.lax.cond(jnp.any(done), flush, lambda state, done: state, state, done)

        shapes = jax.eval_shape(local.finish, *first, carry)
        stack = jax.tree.map(lambda s: jax.ShapeDtypeStruct((clients, *s.shape), s.dtype), shapes.message)
        part = jax.eval_shape(local.collect, stack, cohort) if local.additive else stack
        slots = next_slots(jnp.arange(width, dtype=jnp.int32))
        state = _Packed(
            carry=jax.vmap(local.start)(*gather(slots)),
            slot=slots,
            step=jnp.zeros(width, jnp.int32),
            taken=jnp.int32(width),
            part=tree.zeros(part),
            rows=rows,
            metrics=tree.zeros(shapes.metrics),
        )
        state = jax.lax.while_loop(lambda state: jnp.any(state.slot < clients), body, state)
        part = state.part if local.additive else local.collect(state.part, cohort)
        return part, state.rows, state.metrics

    return run


def default_lanes(carry: Tree) -> int:
    """How many lanes keep the device busy: on CPU what stays in cache, elsewhere what a few gigabytes hold."""
    size = sum(
        x.size * jnp.dtype(x.dtype).itemsize if not jnp.issubdtype(x.dtype, jax.dtypes.extended) else 8 for x in jax.tree.leaves(carry)
    )
    budget, most = (2**17, 16) if jax.default_backend() == "cpu" else (2**31, 1024)
    return max(1, min(most, budget // max(size, 1)))


def _total(metrics: Tree, counted: Array) -> Tree:
    """Sum per-client metrics over the clients that count."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), tree.zero_where_not(counted, metrics))
