"""Run rounds with only the cohort's share on the device: its examples from disk, its own and uplink rows from host memory.

The rounds equal rounds in memory. With examples from disk each round is a program, and the next cohort is read while this cohort trains.
Each device has the examples of its own clients only, and each process reads only the examples of its devices.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite import tree
from fedjax_lite.base import Algorithm, Client, Mean, State, Tree
from fedjax_lite.data.federated import FederatedData, Piece
from fedjax_lite.data.store import Store
from fedjax_lite.engine import devices, placement
from fedjax_lite.evaluation import evaluate, evaluate_apart
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.host_rows import Rows
from fedjax_lite.runner.memory import nbytes
from fedjax_lite.sampling.draw import Drawn, draw, looked, looks, ready, steps_of, taking_part
from fedjax_lite.sampling.participation import Sampler

STEP = 1.25  # a piece's number of rows is a power of this, so that few sizes are compiled
EVALUATED = 2**26  # bytes of examples that a device evaluates at once
HELD = 2**26  # bytes of own and uplink rows up to which a segment is one program; above, a program a round adds little time


def streamed(data: FederatedData | Store, first_rows: Callable[[Any, Any], Tree] | None = None) -> Callable[..., Any]:
    """Make the function that runs a segment, as `run.in_memory` does for data and rows on the device.

    Args:
        data: a store, whose examples are streamed; or a population on the device.
        first_rows: key, ids -> own, uplink, the rows that clients start with, for rows in host memory; None: rows are on the device.

    Returns:
        A function that returns the state, metrics `[rounds]`, the evaluation after the last round, and who was drawn.
    """
    sizes = placement.everywhere(jnp.asarray(data.size))
    pieces = _pieces(data) if isinstance(data, Store) else None
    rows: Rows | None = None

    def segment(algorithm, sampler, loss_fn, rounds, state, *, held_out):
        nonlocal rows
        if looks(sampler) and rounds > 1:  # a cohort depends on the rounds before
            return _one_by_one(segment, algorithm, sampler, loss_fn, rounds, state, held_out)
        before = np.array(state.sampling.drawn) if looks(sampler) else None
        cohorts, (ids, device, steps), memory = _drawn(algorithm, sampler, rounds, state, sizes)
        state = state._replace(sampling=memory)
        if first_rows:
            rows = rows or Rows(state, data.population, partial(first_rows, jax.tree.map(jnp.copy, state.key)))  # the state is donated
        length = at_once(data, rounds, ids.shape[1], rows.nbytes if rows else 0)
        history: list[dict[str, Any]] = []
        for t, held in zip(range(0, rounds, length), pieces(ids, device) if pieces else repeat(data), strict=False):
            jax.block_until_ready(history[-1:])  # overlapping programs over CPU devices can wait for each other for ever
            cohort = tree.take(cohorts, jnp.arange(t, t + length))
            if rows:
                clients, row = _distinct(ids[t : t + length], data.population)
                own, uplink, row = placement.everywhere((*rows.take(clients), row))
                state, cohort = state._replace(own=own, uplink=uplink), cohort._replace(place=cohort.place._replace(row=row))
            state, metrics = _rounds(algorithm, sampler, state, held, cohort)
            if rows:
                rows.put(clients, (state.own, state.uplink))
                state = state._replace(own=(), uplink=())  # gone before the next are there
            history.append(metrics)
        measured = jax.tree.map(lambda *values: np.concatenate(values), *jax.device_get(history))
        evaluation = evaluated(loss_fn, algorithm.params(state), held_out) if loss_fn else {}
        if before is None:
            drawn = Drawn(_times(ids, data.population), steps)
        else:  # who was drawn before the sampler looked is more than who trained
            drawn = Drawn(np.asarray(state.sampling.drawn) - before, steps[:, :0])
        return rows.within(state) if rows else state, measured, evaluation, drawn

    return segment


def at_once(data: FederatedData | Store, rounds: int, clients: int, row: int) -> int:
    """Return how many of a segment's rounds are one program: 1 for a store or rows above `HELD` bytes, else all.

    Args:
        row: bytes of a client's own and uplink row in host memory.
    """
    return 1 if isinstance(data, Store) or rounds * clients * row > HELD else rounds


def lowered(data: FederatedData | Store, first_rows, algorithm, sampler, rounds: int, state) -> tuple[jax.stages.Lowered, int]:
    """Lower the program of the first `at_once` rounds of a segment; also return the bytes of its streamed examples on each device.

    Args:
        state: shapes, but arrays for key and round.
    """
    cohorts, (ids, device, _), memory = _drawn(algorithm, sampler, rounds, state, placement.everywhere(jnp.asarray(data.size)))
    state = state._replace(sampling=memory)
    held: Any = data
    row = nbytes(jax.eval_shape(first_rows, state.key, ids[0, :1])) if first_rows else 0
    cohort = tree.take(cohorts, jnp.arange(at_once(data, rounds, ids.shape[1], row)))
    if isinstance(data, Store):
        held = next(_pieces(data)(ids, device))  # all pieces of a segment have the same number of rows
    if first_rows:
        clients, rows = _distinct(ids[: len(cohort.id)], data.population)
        own, uplink = jax.eval_shape(first_rows, state.key, clients)
        state, cohort = state._replace(own=own, uplink=uplink), cohort._replace(place=cohort.place._replace(row=jnp.asarray(rows)))
    examples = nbytes(held.examples) // placement.device_count() if isinstance(data, Store) else 0
    return _rounds.of(algorithm, sampler).lower(*placement.shapes((state, held, cohort))), examples


def _one_by_one(segment: Callable[..., Any], algorithm, sampler, loss_fn, rounds: int, state, held_out) -> tuple:
    """Run a segment as segments of one round, evaluated after the last."""
    found = []
    for t in range(rounds):
        state, *each = segment(algorithm, sampler, loss_fn if t == rounds - 1 else None, 1, state, held_out=held_out)
        found.append(each)
    measured, evaluations, drawn = zip(*found, strict=True)
    return (
        state,
        jax.tree.map(lambda *values: np.concatenate(values), *measured),
        evaluations[-1],
        Drawn(sum(each.times for each in drawn), np.concatenate([each.steps for each in drawn])),
    )


def _drawn(algorithm, sampler, rounds, state, sizes) -> tuple[Client, list[np.ndarray], Tree]:
    """Draw `_cohorts`, with ids, devices and steps `[rounds, clients]` as NumPy arrays, and the sampler's memory after them."""
    state = ready(sampler, state._replace(own=(), uplink=()), sizes)
    (cohorts, *of_slots), memory = _cohorts(algorithm, sampler, rounds, placement.device_count(), state, sizes)
    return cohorts, [np.asarray(each) for each in of_slots], memory


def _times(ids: np.ndarray, population: int) -> np.ndarray:
    """Count how often each client stands in `ids`, where an empty slot has the id `population`."""
    return np.bincount(ids.ravel(), minlength=population + 1)[:population]


def _distinct(ids: np.ndarray, population: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct clients of `ids`, and for each slot its client's index among them.

    The clients are filled up with the id `population` to a length that only shapes decide.
    """
    clients = np.unique(ids)
    clients = clients[clients < population]
    filled = np.full(min(ids.size, population), population, np.int32)
    filled[: len(clients)] = clients
    return filled, np.searchsorted(clients, ids).astype(np.int32)


def _pieces(store: Store) -> Callable[..., Iterator[Piece]]:
    """Make a generator function: ids and devices `[rounds, clients]` -> a piece a round, each client's examples on its device."""
    rows = 1  # examples on a device, filled up; never shrinks, since each new number compiles a program

    def pieces(ids: np.ndarray, device: np.ndarray) -> Iterator[Piece]:
        nonlocal rows
        ids = np.where(device[:, None] == np.arange(placement.device_count())[:, None], ids[:, None], store.population)
        most = store.held(ids).sum(axis=-1).max()  # [rounds, devices, clients]: each slot once, on its device
        rows = rows if most <= rows else math.ceil(STEP ** math.ceil(math.log(most, STEP)))
        for t, examples in enumerate(_read_ahead(store, ids, rows)):
            start = np.take_along_axis(_starts(store.held(ids[t])), device[t][None], axis=0)[0]
            start, whose = placement.everywhere((start, device[t]))
            yield Piece(examples, start, store.largest, store.population, whose)  # copied while the round before trains

    return pieces


def drawn_for(algorithm: Algorithm, sampler: Sampler, rounds: int, state: State, sizes: Any) -> np.ndarray:
    """Return for how many of the next `rounds` rounds each client will be drawn."""
    return _times(_drawn(algorithm, sampler, rounds, state, sizes)[1][0], len(sizes))


@partial(Compiled, parts=2, static_argnames=("rounds", "among"))
def _cohorts(algorithm: Algorithm, sampler: Sampler, rounds: int, among: int, state, sizes) -> tuple[tuple[Client, Any, Any, Any], Tree]:
    """Draw the stacked cohorts of the next `rounds` rounds, and for each slot the client's id, device and steps, `[rounds, clients]`.

    The id of an empty slot is the population's size. A cohort depends on no result of training, so all can be drawn ahead.
    Also returns the sampler's memory after the last.
    """

    def one(carry, _):
        round, memory = carry
        cohort, after = draw(sampler, algorithm, state._replace(round=round, sampling=memory), sizes)
        planned = algorithm.layout.steps(cohort, round) if algorithm.layout else cohort._replace(steps=cohort.size)
        drawn = (
            cohort,
            taking_part(algorithm, cohort, round, len(sizes)),
            devices.assign(planned.steps, among),
            steps_of(algorithm, cohort, round),
        )
        return (round + 1, after.sampling), drawn

    (_, memory), drawn = jax.lax.scan(one, (state.round, state.sampling), length=rounds)
    return drawn, memory


@partial(Compiled, parts=2, donate_argnames="state")
def _rounds(algorithm, sampler, state, data, cohorts):
    """Run a round for each of the stacked cohorts in one program; return the state and metrics `[rounds]`."""

    def one(state, cohort):
        cohort, state = looked(sampler, algorithm, state, data, cohort)
        after, metrics = algorithm.round(state, data, cohort)
        return after._replace(sampling=state.sampling), metrics

    return jax.lax.scan(one, state, cohorts)


def _read_ahead(store: Store, ids: np.ndarray, rows: int) -> Iterator[Tree]:
    """Yield each round's examples; a device has the examples of its clients `ids[round, device]`. A thread reads one round ahead."""
    places = placement.local_devices()  # asked here, since the reader's thread has no mesh in use
    with ThreadPoolExecutor(1) as reader:

        def start(t):
            return reader.submit(lambda: {place: store.read(ids[t, place], rows) for place in places})

        ahead = start(0)
        for t in range(len(ids)):
            examples = placement.split(ahead.result())
            ahead = start(t + 1) if t + 1 < len(ids) else ahead  # the examples of round t are on the device now
            yield examples


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Return each client's first row, where clients of `sizes` examples follow each other along the last axis."""
    return (np.cumsum(sizes, axis=-1) - sizes).astype(np.int32)


def evaluated(loss_fn, params: Tree, held_out: FederatedData | Store) -> dict[str, Mean]:
    """Return each client's sums of metrics, `[population]`; a store is evaluated in groups of consecutive clients, a group a device."""
    if isinstance(held_out, FederatedData):
        return _evaluate(loss_fn, params, held_out)
    groups = [(jax.device_get(_evaluate_apart(loss_fn, params, some)), real) for some, real in _groups(held_out)]
    reals = [real for _, real in groups]
    return jax.tree.map(lambda *sums: np.concatenate(sums)[np.concatenate(reals)], *(sums for sums, _ in groups))


def lowered_evaluation(loss_fn, params: Tree, held_out: FederatedData | Store) -> jax.stages.Lowered:
    """Lower the program of an evaluation, or of one group of a store's clients."""
    if isinstance(held_out, FederatedData):
        return _evaluate.of(loss_fn).lower(*placement.shapes((params, held_out)))
    return _evaluate_apart.of(loss_fn).lower(*placement.shapes((params, next(_groups(held_out))[0])))


def _groups(held_out: Store) -> Iterator[tuple[FederatedData, np.ndarray]]:
    """Yield groups of consecutive clients, a group a device, and a mask over clients that is False where a group is filled up."""
    each = sum(x.nbytes // len(x) for x in jax.tree.leaves(held_out.examples))
    places = placement.device_count()
    turns = max(1, -(-int(held_out.size.sum()) * each // (EVALUATED * places)))
    ends = np.cumsum(held_out.size, dtype=np.int64)
    edges = np.searchsorted(ends, ends[-1] * np.arange(1, turns * places) / (turns * places))  # about equal numbers of examples
    groups = np.split(np.arange(held_out.population), edges)
    most = max(map(len, groups))
    ids = np.stack([np.pad(group, (0, most - len(group)), constant_values=held_out.population) for group in groups])
    sizes = held_out.held(ids).astype(np.int32)
    starts, rows = _starts(sizes), int(sizes.sum(axis=-1).max())

    for first in range(0, turns * places, places):
        parts = {
            place: FederatedData(held_out.read(ids[first + place], rows), starts[first + place], sizes[first + place], held_out.largest)
            for place in placement.local_devices()
        }
        yield placement.split(parts), ids[first : first + places].reshape(-1) < held_out.population


@partial(Compiled, parts=1)
def _evaluate(loss_fn, params, data) -> dict[str, Mean]:
    """Compile `evaluate` once for each `loss_fn`."""
    return evaluate(loss_fn, params, data)


@partial(Compiled, parts=1)
def _evaluate_apart(loss_fn, params, data) -> dict[str, Mean]:
    """Compile `evaluate_apart` once for each `loss_fn`."""
    return evaluate_apart(loss_fn, params, data)
