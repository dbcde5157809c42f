"""Rounds over a population on disk: the same round as in memory, one program each, the next cohort read while this one trains."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite import tree
from fedjax_lite.base import Client, Mean, State, Tree, round_key
from fedjax_lite.data.federated import FederatedData, Piece
from fedjax_lite.data.store import Store
from fedjax_lite.engine.devices import everywhere
from fedjax_lite.evaluate import evaluate
from fedjax_lite.sampling import Sampler

STEP = 1.25  # pieces have a power of this as their number of rows
EVALUATED = 2**26  # bytes of examples that are evaluated at once


def streamed(store: Store) -> Callable[..., Any]:
    """What `run`'s segment is for a population in memory: rounds, their metrics as arrays `[rounds]`, and the evaluation after them."""
    sizes = everywhere(jnp.asarray(store.size))
    rows = 1  # of a piece; grows with the largest cohort met so far, since every other number compiles a program

    def segment(algorithm, sampler, loss_fn, rounds, state, *, held_out) -> tuple[State, dict[str, np.ndarray], dict[str, Mean]]:
        nonlocal rows
        cohorts = _cohorts(sampler, rounds, state.key, state.round, sizes)
        ids = np.where(np.asarray(cohorts.weight) > 0, cohorts.id, store.population)  # nobody's examples are read for an empty slot
        most = store.held(ids).sum(axis=1).max()
        rows = rows if most <= rows else math.ceil(STEP ** math.ceil(math.log(most, STEP)))
        history: list[dict[str, Any]] = []
        for t, piece in enumerate(_pieces(store, ids, rows)):
            piece = everywhere(piece)  # on its way while the round before it trains
            jax.block_until_ready(history[-1:])  # programs over several CPU devices that overlap can wait for each other for ever
            state, metrics = _round(algorithm, state, piece, tree.take(cohorts, jnp.int32(t)))
            history.append(metrics)
        measured = jax.tree.map(lambda *values: np.stack(values), *jax.device_get(history))
        return state, measured, _evaluated(loss_fn, algorithm.params(state), held_out) if loss_fn else {}

    return segment


@partial(jax.jit, static_argnames=("sampler", "rounds"))
def _cohorts(sampler: Sampler, rounds: int, key, first, sizes) -> Client:
    """The cohorts of the next rounds, a stack: who takes part depends on no result."""

    def one(round):
        return sampler(round_key(State(round, key, (), (), (), ())), sizes, round)

    return jax.lax.map(one, first + jnp.arange(rounds, dtype=jnp.int32))


@partial(jax.jit, static_argnames="algorithm", donate_argnames="state")
def _round(algorithm, state, piece, cohort):
    return algorithm.round(state, piece, cohort)


def _pieces(store: Store, ids: np.ndarray, rows: int) -> Iterator[Piece]:
    """The examples of each cohort, read one round ahead."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(store.piece, ids[0], rows)
        for after in [*ids[1:], None]:
            piece = ahead.result()
            if after is not None:
                ahead = reader.submit(store.piece, after, rows)
            yield piece


def _evaluated(loss_fn, params: Tree, held_out: FederatedData | Store) -> dict[str, Mean]:
    """Sums of each client; those of a store in groups of clients that follow each other."""
    if isinstance(held_out, FederatedData):
        return _evaluate(loss_fn, params, held_out)
    each = sum(x.nbytes // len(x) for x in jax.tree.leaves(held_out.examples))
    groups = max(1, -(-int(held_out.size.sum()) * each // EVALUATED))
    ids = np.array_split(np.arange(held_out.population), groups)
    clients, rows = len(ids[0]), max(int(held_out.size[group].sum()) for group in ids)

    def sums(group: np.ndarray) -> dict[str, Mean]:
        piece = held_out.piece(group, rows)
        size = np.pad(held_out.size[group], (0, clients - len(group)))
        start = np.cumsum(size, dtype=np.int32) - size
        some = everywhere(FederatedData(piece.examples, start, size, held_out.largest))
        return jax.tree.map(lambda x: np.asarray(x)[: len(group)], _evaluate(loss_fn, params, some))

    return jax.tree.map(lambda *groups: np.concatenate(groups), *map(sums, ids))


@partial(jax.jit, static_argnames="loss_fn")
def _evaluate(loss_fn, params, data) -> dict[str, Any]:
    return evaluate(loss_fn, params, data)
