"""From the arrays that a file holds to a `Part`: numbers in jax's dtypes, one shape an example, as many labels as inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedjax_lite.data.arrange import Part
from fedjax_lite.data.error import DataError


def part_of(clients: Mapping[str, Mapping[str, np.ndarray]], where: Any) -> Part:
    """Make a part of one {leaf: array} a client; an error names the file or folder `where`, the client and the leaf."""
    held = {name: client for name, client in clients.items() if _length(client, f"client {name!r} of {where}")}
    if not held:
        raise DataError(f"{where} holds no examples")
    names = list(held)
    first = held[names[0]]
    for name, client in held.items():
        if client.keys() != first.keys():
            raise DataError(f"{where}: client {name!r} has {sorted(client)}, client {names[0]!r} {sorted(first)}: make them equal")
        for leaf, array in client.items():
            if array.shape[1:] != first[leaf].shape[1:]:
                shapes = f"{list(array.shape[1:])} at client {name!r} and {list(first[leaf].shape[1:])} at client {names[0]!r}"
                raise DataError(f"{where}: an example's {leaf} has the shape {shapes}: make them equal")
    owner = np.repeat(np.arange(len(names)), [len(next(iter(client.values()))) for client in held.values()])

    def joined(leaf: str) -> np.ndarray:
        whole = np.concatenate([client[leaf] for client in held.values()])
        return numbers(whole, lambda row: f"{where}: {leaf} of client {names[owner[row]]!r}")

    return Part({leaf: joined(leaf) for leaf in first}, owner, names, str(where))


def central(examples: Mapping[str, np.ndarray], where: Any) -> Part:
    """Make a part that names no clients; an error names the file or folder `where`, the example and the leaf."""
    if not _length(examples, str(where)):
        raise DataError(f"{where} holds no examples")
    places = {leaf: lambda row, leaf=leaf: f"{where}: {leaf} of example {row}" for leaf in examples}
    return Part({leaf: numbers(array, places[leaf]) for leaf, array in examples.items()}, where=str(where))


def numbers(array: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """Cast to float32 or int32; refuse what does not fit, with the `place` of the first such row."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{place(0)} holds {array.dtype}, not numbers")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(np.float32, copy=False)
        bad, what = ~np.isfinite(cast), "NaN, Inf or a number beyond float32: clean or drop such examples"
    else:
        cast = array.astype(np.int32, copy=False)
        bad, what = cast != array, "a number beyond int32: map the values to 0, 1, 2 ..."
    if bad.any():
        raise DataError(f"{place(int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0]))} holds {what}")
    return cast


def pixels(array: np.ndarray) -> np.ndarray:
    """Scale bytes to float32 in [0, 1]; leave other numbers as they are."""
    return array.astype(np.float32) / 255 if array.dtype == np.uint8 else array


def _length(leaves: Mapping[str, np.ndarray], whose: str) -> int:
    """Return the length that all leaves share."""
    lengths = {leaf: len(array) if array.ndim else -1 for leaf, array in leaves.items()}
    if len(set(lengths.values())) != 1 or -1 in lengths.values():
        found = ", ".join(f"{leaf} {list(array.shape)}" for leaf, array in leaves.items())
        raise DataError(f"{whose} has leaves of unequal length ({found}): every x needs one y")
    return next(iter(lengths.values()))
