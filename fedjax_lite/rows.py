"""What clients keep, in host memory: the rows of those that took part. A client that never did costs its place in an index."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite import tree
from fedjax_lite.base import State, Tree

__all__ = ["Rows", "Touched"]

GROWTH = 1.5


class Touched(NamedTuple):
    """The place of `State.own` or `State.uplink` in host memory; random keys as their words."""

    ids: np.ndarray  # int32 [touched], the clients that took part
    rows: Tree  # numpy [touched, ...]


class Rows:
    """Own and uplink rows by client id.

    Args:
        state: whose `own` and `uplink` are `Touched`, with the rows to start from.
        population: how many clients there are.
        first: ids -> (own, uplink), the rows that clients start with; called for cohorts with clients that are new.
    """

    def __init__(self, state: State, population: int, first: Callable[[Any], Tree]) -> None:
        self._first = first
        self._like = first(np.zeros(1, np.int32))  # whose random keys tell their kind
        self._ids = np.array(state.own.ids, np.int32)  # by place
        self._count = len(self._ids)
        self._place = np.full(population, -1, np.int32)
        self._place[self._ids] = np.arange(self._count)
        self._table = jax.tree.map(np.array, (state.own.rows, state.uplink.rows))

    def take(self, ids: np.ndarray) -> Tree:
        """The rows of a cohort; those of an id past the population are any."""
        ids = np.minimum(ids, len(self._place) - 1)
        place = self._place[ids]
        known = place >= 0
        if known.all():
            rows = jax.tree.map(lambda x: x[place], self._table)
        else:
            rows = jax.tree.map(np.array, tree.words(self._first(ids)))
            jax.tree.map(lambda row, x: row.__setitem__(known, x[place[known]]), rows, self._table)
        return jax.tree.map(tree.keys_again, rows, self._like)

    def put(self, ids: np.ndarray, rows: Tree) -> None:
        """Keep the rows of a cohort that has trained; an id past the population is an empty slot.

        Raises:
            ValueError: for a client that is in the cohort twice.
        """
        slots = np.flatnonzero(ids < len(self._place))
        ids = ids[slots]
        found, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise ValueError(f"client {found[times > 1][0]} is in a cohort twice: with own_on_host a sampler must draw each at most once")
        new = ids[self._place[ids] < 0]
        self._grow(self._count + len(new))
        self._place[new] = self._count + np.arange(len(new))
        self._ids[self._count : self._count + len(new)] = new
        self._count += len(new)
        jax.tree.map(lambda x, row: x.__setitem__(self._place[ids], np.asarray(row)[slots]), self._table, tree.words(rows))

    def within(self, state: State) -> State:
        """The state with the rows in it: a view, good until the next `put`."""
        own, uplink = jax.tree.map(lambda x: x[: self._count], self._table)
        ids = self._ids[: self._count]
        return state._replace(own=Touched(ids, own), uplink=Touched(ids, uplink))

    def _grow(self, count: int) -> None:
        if count > len(self._ids):
            room = min(len(self._place), max(count, int(GROWTH * len(self._ids)))) - len(self._ids)
            self._ids, self._table = jax.tree.map(
                lambda x: np.concatenate([x, np.empty((room, *x.shape[1:]), x.dtype)]), (self._ids, self._table)
            )


def untouched(rows: Tree) -> Touched:
    """No rows yet, of these shapes `[population, ...]`."""
    shapes = jax.eval_shape(tree.words, rows)
    return Touched(np.empty(0, np.int32), jax.tree.map(lambda x: np.empty((0, *x.shape[1:]), x.dtype), shapes))
