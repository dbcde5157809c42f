"""A population on disk, which may be larger than memory: a folder of .npy files that are mapped, not read."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import fingerprint
from fedjax_lite.data.facts import read_facts
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.names import Names, checked_names
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.tree import nested


@dataclass(frozen=True, eq=False)
class Store:
    """A population whose examples stay on disk; `fl.run` streams it, a cohort at a time.

    Attributes:
        path: its folder.
        examples: leaves `[examples, ...]`, client after client, mapped from disk.
        start: int64 `[population]`, the row of each client's first example.
        size: int32 `[population]`, the number of each client's examples.
        largest: the largest size.
        words: the class names, where labels were words; or None.
        names: the clients' names, row by row; or None.
    """

    path: Path
    examples: Tree
    start: np.ndarray
    size: np.ndarray
    largest: int
    written: dict[str, Any]  # the fingerprint of the data as they were saved
    words: tuple[str, ...] | None = None
    names: Names | None = None

    @classmethod
    def open(cls, path: str | os.PathLike, *, verify: bool = True) -> "Store":
        """Open the folder that `save` wrote.

        Args:
            path: the folder.
            verify: read every byte once and compare with the checksum; False looks at sizes and shapes alone.

        Raises:
            FileNotFoundError: no store there.
            ValueError: another version, a file that is cut off, is not in the folder or does not fit, a wrong checksum; names the file.
        """
        path = Path(path).expanduser()
        if not (path / "store.json").is_file():
            raise FileNotFoundError(f"{path} is no store (it has no store.json): write one with fl.data.save")
        facts = read_facts(path / "store.json")
        leaves = {tuple(leaf["path"]): _mapped(path, leaf) for leaf in facts["leaves"]}
        size, start, written = np.array(leaves.pop(("size",))), np.array(leaves.pop(("start",))), facts["fingerprint"]
        _check_sizes(path / "size.npy", size, {".".join(keys): len(x) for keys, x in leaves.items()})
        if not np.array_equal(start, np.cumsum(size, dtype=np.int64) - size):
            raise ValueError(f"{path / 'start.npy'} does not fit the sizes in size.npy: write the store again")
        examples = nested({keys[1:]: x for keys, x in leaves.items()})
        if verify and (found := fingerprint(examples, size)) != written:
            raise ValueError(
                f"{path} has changed since it was written (checksum {written['sha256']}, now {found['sha256']}): write it again"
            )
        words, names = facts.get("words"), facts.get("names")
        try:
            names = None if names is None else checked_names(names, len(size))
        except ValueError as error:
            raise ValueError(f"{path / 'store.json'} is damaged ({error}): write the store again") from None
        return cls(path, examples, start, size, int(size.max()), written, words and tuple(words), names)

    summary = FederatedData.summary

    @property
    def population(self) -> int:
        """The number of clients."""
        return len(self.size)

    @property
    def example(self) -> Tree:
        """The first example, without a batch axis."""
        return jax.tree.map(lambda x: np.array(x[0]), self.examples)

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint that `save` wrote, equal to the fingerprint of the same data in memory."""
        return self.written

    def in_memory(self) -> FederatedData:
        """Copy the whole population to the device."""
        if self.written["examples"] >= 2**31:
            raise ValueError(f"{self.path} holds {self.written['examples']} examples, too many for one device's 32-bit rows: stream it")
        examples = jax.tree.map(jnp.array, self.examples)
        return FederatedData(examples, jnp.asarray(self.start, jnp.int32), jnp.array(self.size), self.largest, self.words, self.names)

    def shapes(self) -> FederatedData:
        """Return the shapes of `in_memory()`, to trace with."""
        examples = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.examples)
        numbers = jax.ShapeDtypeStruct(self.size.shape, jnp.int32)
        return FederatedData(examples, numbers, numbers, self.largest, self.words, self.names)

    def held(self, ids: np.ndarray) -> np.ndarray:
        """Return the number of examples of each client in `ids`; 0 for an id outside the population."""
        inside = (ids >= 0) & (ids < self.population)
        return np.where(inside, self.size[np.where(inside, ids, 0)], 0).astype(np.int64)

    def read(self, ids: np.ndarray, rows: int | None = None) -> Tree:
        """Copy the examples of clients `ids` to host memory, client after client; an id outside the population has no examples.

        Args:
            ids: int `[clients]`.
            rows: rows of the copy, filled up with zeros; by default the number of examples, but at least 1.
        """
        sizes = self.held(ids)
        ends = np.cumsum(sizes)
        rows = max(1, int(ends[-1])) if rows is None else rows
        if rows < ends[-1]:
            raise ValueError(f"rows={rows}: these clients hold {ends[-1]} examples, give at least as many rows")
        index = np.arange(ends[-1]) + np.repeat(self.start[np.where(sizes > 0, ids, 0)] - (ends - sizes), sizes)

        def leaf(x):
            out = np.zeros((rows, *x.shape[1:]), x.dtype)
            np.take(x, index, axis=0, out=out[: ends[-1]], mode="clip")
            return out

        return jax.tree.map(leaf, self.examples)


def store(path: str | os.PathLike, *, test: str | os.PathLike | None = None, in_memory: bool = False, verify: bool = True) -> TrainTest:
    """A population in a store (`fl.data.save`), streamed from disk a cohort at a time.

    Args:
        path: the training store's folder.
        test: the held-out examples' store, which is read into memory.
        in_memory: read the training store into memory too.
        verify: compare both with their checksums first, which reads every byte.

    >>> import tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = fl.data.save(folder + "/clients", [{"x": np.array([1.0, 2.0])}, {"x": np.array([3.0])}])
    ...     train = fl.data.store(folder + "/clients").train
    ...     train.size.tolist(), train.read(np.array([1]))["x"].tolist()
    ([2, 1], [3.0])
    """
    train = Store.open(path, verify=verify)
    held_out = None if test is None else Store.open(test, verify=verify).in_memory()
    return TrainTest(train.in_memory() if in_memory else train, held_out)


def _check_sizes(file: Path, size: np.ndarray, rows: dict[str, int]) -> None:
    """Refuse sizes that are no int32 counts, or whose sum is not the number of rows of each leaf."""
    if size.dtype != np.int32 or size.ndim != 1 or not size.any() or size.min() < 0:
        raise ValueError(f"{file} holds no sizes of clients, int32 from 0 and not all 0: write the store again")
    for name, length in rows.items():
        if size.sum(dtype=np.int64) != length:
            raise ValueError(f"{file} adds up to {size.sum(dtype=np.int64)} examples, {name} has {length}: write the store again")


def _mapped(folder: Path, leaf: dict[str, Any]) -> np.ndarray:
    """Map a leaf's file, once its dtype and shape are as `store.json` says."""
    file = folder / leaf["file"]
    try:
        x = np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # NumPy reads the header as Python's syntax: a damaged header raises errors of many types
        raise ValueError(f"{file} is missing, cut off or no .npy file ({error}): write the store again") from error
    if [x.dtype.str, list(x.shape)] != [leaf["dtype"], leaf["shape"]]:
        raise ValueError(f"{file} holds {x.dtype}{list(x.shape)}, store.json says {leaf['dtype']}{leaf['shape']}: write the store again")
    return x
