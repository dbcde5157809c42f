"""Own and uplink rows in host memory, for the clients that took part; other clients take no memory."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite import tree
from fedjax_lite.base import State, Tree
from fedjax_lite.runner.memory import host_memory

__all__ = ["Rows", "Touched"]

GROWTH = 1.5  # a full table grows at least by this factor, so that few copies are made


class Touched(NamedTuple):
    """Stands for `State.own` or `State.uplink` while rows are in host memory; random keys are stored as integer words."""

    ids: np.ndarray  # int32 [touched], the clients that took part
    rows: Tree  # numpy [touched, ...]


class Rows:
    """A table of own and uplink rows by client id, which grows as clients take part.

    Args:
        state: its `own` and `uplink` are `Touched` and hold the table's first rows.
        population: the number of clients.
        first: ids -> (own, uplink), the rows that clients start with; called for a cohort with new clients.
    """

    def __init__(self, state: State, population: int, first: Callable[[Any], Tree]) -> None:
        self._first = first
        self._like = first(np.zeros(1, np.int32))  # one row, from which stored random keys get their kind back
        self._population = population
        self._ids = np.array(state.own.ids, np.int32)  # the client of each row, then room
        self._count = len(self._ids)
        self._place = {id: place for place, id in enumerate(self._ids.tolist())}
        self._table = jax.tree.map(np.array, (state.own.rows, state.uplink.rows))

    @property
    def nbytes(self) -> int:
        """Return the bytes of a client's own and uplink row."""
        return sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in jax.tree.leaves(self._table))

    def take(self, ids: np.ndarray) -> Tree:
        """Return the rows of `ids`; for an id outside the population the row is arbitrary."""
        ids = np.minimum(ids, self._population - 1)
        place = self._places(ids)
        known = place >= 0
        if known.all():
            rows = jax.tree.map(lambda x: x[place], self._table)
        else:
            rows = jax.tree.map(np.array, tree.words(self._first(ids)))
            jax.tree.map(lambda row, x: row.__setitem__(known, x[place[known]]), rows, self._table)
        return jax.tree.map(tree.keys_again, rows, self._like)

    def put(self, ids: np.ndarray, rows: Tree) -> None:
        """Store `rows` of the clients `ids`, all different; a row with an id outside the population is ignored."""
        here = np.flatnonzero(ids < self._population)
        slots = slice(len(here)) if len(here) and here[-1] == len(here) - 1 else here  # of a slice no copy is made
        ids = ids[slots]
        new = ids[self._places(ids) < 0]
        self._grow(self._count + len(new))
        self._place |= {id: self._count + i for i, id in enumerate(new.tolist())}
        self._ids[self._count : self._count + len(new)] = new
        self._count += len(new)
        place = self._places(ids)
        jax.tree.map(lambda x, row: x.__setitem__(place, np.asarray(row)[slots]), self._table, tree.words(rows))

    def within(self, state: State) -> State:
        """Return `state` with the table's rows as `Touched`: views, valid until the next `put`."""
        own, uplink = jax.tree.map(lambda x: x[: self._count], self._table)
        ids = self._ids[: self._count]
        return state._replace(own=Touched(ids, own), uplink=Touched(ids, uplink))

    def _places(self, ids: np.ndarray) -> np.ndarray:
        """Return each client's index in the table; -1 for a client without a row."""
        return np.array([self._place.get(id, -1) for id in ids.tolist()], np.int64)

    def _grow(self, count: int) -> None:
        """Make room for `count` rows in all, if possible for all that the host can hold: unwritten pages take no memory."""
        if count <= len(self._ids):
            return
        least = min(self._population, max(count, int(GROWTH * len(self._ids))))
        try:
            self._move(min(self._population, max(least, (host_memory() or 0) // max(1, self.nbytes))))
        except MemoryError:  # where an address space has a limit
            self._move(least)

    def _move(self, room: int) -> None:
        """Move the table to one of `room` rows."""

        def moved(x):
            wider = np.empty((room, *x.shape[1:]), x.dtype)
            wider[: self._count] = x[: self._count]
            return wider

        self._ids, self._table = jax.tree.map(moved, (self._ids, self._table))


def untouched(rows: Tree) -> Touched:
    """Return a `Touched` without rows, for a tree of shapes `[population, ...]`."""
    shapes = jax.eval_shape(tree.words, rows)
    return Touched(np.empty(0, np.int32), jax.tree.map(lambda x: np.empty((0, *x.shape[1:]), x.dtype), shapes))
