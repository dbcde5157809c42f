"""Write a population to disk, client by client; `store.py` reads it."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import check_examples, fingerprint, length_of, on_host
from fedjax_lite.data.facts import FORMAT, VERSION
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.names import checked_names
from fedjax_lite.data.store import Store
from fedjax_lite.tree import nested


def save(path: str | os.PathLike, clients: FederatedData | Iterable[Tree], *, allow_empty: bool = False, names: Any = None) -> Store:
    """Write a store: a folder with one .npy file a leaf, `size.npy`, `start.npy` and `store.json`, which describes these files.

    The folder appears when it is whole; of a write that fails, nothing stays.

    Args:
        path: the folder, which must not exist.
        clients: a population, or an iterable (a generator) of one pytree of arrays a client: (nested) dicts of arrays
            `[examples of that client, ...]`, or one array. Only one client is in memory at a time.
        allow_empty: admit clients without examples.
        names: a name a client, each another; by default those of the population.

    Returns:
        The store.

    Raises:
        ValueError: a folder that exists, clients that do not fit together, NaN or Inf; names the client and the leaf.
        OSError: a disk that is full, a folder that cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = save(folder + "/clients", ({"x": np.full((n, 2), n)} for n in (3, 1)))
    ...     store.population, store.size.tolist(), store.examples["x"].shape
    (2, [3, 1], (4, 2))
    """
    path = Path(path).expanduser()
    if path.exists():
        raise ValueError(f"{path} exists: remove it, or write to another folder")
    partial = path.with_name(f"{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a writer that was killed
        partial.mkdir(parents=True)
        held = clients if isinstance(clients, FederatedData) else None
        words, own = (None, None) if held is None else (held.words, held.names)
        _write(partial, _blocks(clients), allow_empty or held is not None, {"words": words, "names": own if names is None else names})
        partial.rename(path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(
                f"{path} could not be written, and nothing is left of it ({error}): free some space, or choose another folder"
            ) from error
        raise
    return Store.open(path, verify=False)


def _blocks(clients: FederatedData | Iterable[Tree]) -> Iterator[tuple[Tree, np.ndarray]]:
    """Yield examples sorted by client, with each client's size: a whole population at once, or client by client."""
    if isinstance(clients, FederatedData):
        held, ends = len(jax.tree.leaves(clients.examples)[0]), np.cumsum(clients.size)
        if held != ends[-1] or (np.asarray(clients.start) != ends - np.asarray(clients.size)).any():
            raise ValueError("clients share examples, or leave some out: make the population with from_clients or from_arrays")
        yield jax.tree.map(np.asarray, clients.examples), np.asarray(clients.size)
        return
    for i, client in enumerate(clients):
        client = on_host(client, f"client {i}")
        yield client, np.array([length_of(client, f"client {i}")])


def _write(folder: Path, blocks: Iterator[tuple[Tree, np.ndarray]], allow_empty: bool, kept: dict[str, Any]) -> None:
    """Check blocks of clients and write their leaves, sizes, first rows and `store.json` with the texts that are `kept`."""
    files: dict[tuple[str, ...], _Growing] = {}
    sizes: list[np.ndarray] = []
    population = 0
    try:
        for examples, size in blocks:
            examples = check_examples(examples, size, allow_empty=allow_empty, first=population)
            arrays = {("examples", *keys): x for keys, x in _flat(examples)}
            if not population:
                files = {keys: _Growing(folder / f"{'.'.join(keys)}.npy", x) for keys, x in arrays.items()}
            if arrays.keys() != files.keys():
                raise ValueError(f"client {population} has the leaves {_named(arrays)}, those before it {_named(files)}: make them equal")
            for keys, x in arrays.items():
                files[keys].append(x, population)
            sizes.append(size)
            population += len(size)
        if not population:
            raise ValueError("clients is empty: a population needs at least one client")
        size = np.concatenate(sizes).astype(np.int32)
        if not size.any():
            raise ValueError("no client has an example")
        if (names := kept["names"]) is not None:
            checked_names(names, population)
        for name, values in (("size", size), ("start", np.cumsum(size, dtype=np.int64) - size)):
            files[name,] = _Growing(folder / f"{name}.npy", values)
            files[name,].append(values, 0)
    finally:
        for file in files.values():
            file.close()
    leaves = [{"path": keys, "file": f.path.name, "dtype": f.dtype.str, "shape": f.shape} for keys, f in files.items()]
    examples = nested({keys[1:]: np.load(f.path, mmap_mode="r") for keys, f in files.items() if keys[0] == "examples"})
    facts = {"format": FORMAT, "version": VERSION, "leaves": leaves, "fingerprint": fingerprint(examples, size)}
    facts |= {name: list(texts) for name, texts in kept.items() if texts is not None}
    (folder / "store.json").write_text(json.dumps(facts, indent=1))


class _Growing:
    """A .npy file written row by row; NumPy leaves room in its header for a longer first axis."""

    def __init__(self, path: Path, like: np.ndarray) -> None:
        self.path, self.dtype, self.shape = path, like.dtype, (0, *like.shape[1:])
        if self.dtype.kind == "V":
            raise ValueError(f"leaf {path.stem} holds {self.dtype}, which .npy files cannot: make it float32")
        self._file: BinaryIO = open(path, "wb")
        self._header()

    def append(self, x: np.ndarray, client: int) -> None:
        """Write the rows `x` of `client`, which must fit the rows before."""
        if len(x) and (x.dtype, x.shape[1:]) != (self.dtype, self.shape[1:]):
            held, wanted = f"{x.dtype}{list(x.shape[1:])}", f"{self.dtype}{list(self.shape[1:])}"
            raise ValueError(f"leaf {self.path.stem} of client {client} holds {held} an example, those before it {wanted}: make them equal")
        self._file.write(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
        self.shape = (self.shape[0] + len(x), *self.shape[1:])

    def close(self) -> None:
        """Write the final shape into the header."""
        self._file.seek(0)
        self._header()
        self._file.close()

    def _header(self) -> None:
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, facts)


def _flat(tree: Tree, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yield the path and the array of each leaf of nested dicts."""
    if not isinstance(tree, dict):
        if not isinstance(tree, np.ndarray):
            raise ValueError(f"examples hold a {type(tree).__name__}: a store takes (nested) dicts of arrays, or one array")
        yield keys, tree
        return
    for key in tree:
        if not isinstance(key, str) or not key.isidentifier():
            raise ValueError(f"examples have a leaf named {key!r}: in a store names are letters, digits and _")
        yield from _flat(tree[key], (*keys, key))


def _named(leaves: Iterable[tuple[str, ...]]) -> str:
    """Write the paths of leaves for an error."""
    return ", ".join(".".join(keys[1:]) or "(one array)" for keys in leaves)
