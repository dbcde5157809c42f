"""A population from numbers typed by hand, for instance in a configuration file."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest


def table(clients: Sequence[dict[str, Any]]) -> TrainTest:
    """Make a population from one entry a client, with examples as nested lists.

    Args:
        clients: each {"x": [[...], ...], "y": [...]}; x holds one row of numbers an example, y one number, one row or one word an example.

    Returns:
        TrainTest without a test part. Examples: "x" float32 `[features]`; "y" int32 labels where every y of every client is an
        integer, else float32. Words are numbered in their order as text and listed in `words`.

    Raises:
        ValueError: naming the client: not exactly x and y, ragged rows, values other than finite numbers, words beside numbers, unequal
            lengths, no examples.

    >>> data = table([{"x": [[0, 1], [1, 0]], "y": [0, 1]}, {"x": [[0.5, 0.5]], "y": [1]}])
    >>> data.train.size.tolist(), data.train.example["x"].dtype, data.train.example["y"].dtype
    ([2, 1], dtype('float32'), dtype('int32'))
    """
    if not isinstance(clients, Sequence) or isinstance(clients, str) or not clients:
        raise ValueError(f"clients must be a list of one {{x, y}} a client, got {clients!r}")
    for i, client in enumerate(clients):
        if not isinstance(client, dict) or set(client) != {"x", "y"}:
            found = sorted(client) if isinstance(client, dict) else type(client).__name__
            raise ValueError(f'client {i} must have exactly "x" and "y", got {found}')
    names = [f"client {i}" for i in range(len(clients))]
    x = [rows(client["x"], "x", name).astype(np.float32) for client, name in zip(clients, names, strict=True)]
    y = [labels(client["y"], name) for client, name in zip(clients, names, strict=True)]
    if x[0].ndim < 2:
        raise ValueError("x must hold one row an example: write [[1.0], [2.0]] for one feature, not [1.0, 2.0]")
    y, words = numbered(y, names)
    return TrainTest(replace(FederatedData.from_clients(joined(x, y, names)), words=words), None)


def rows(values: Any, field: str, owner: str) -> np.ndarray:
    """Turn nested lists, one row an example, into an array of numbers that fit float32; integers stay integers if all are."""
    if stranger := _stranger(values):  # before NumPy gives every number the room of the longest text
        raise ValueError(f"{field} of {owner} must be a list of numbers, got {stranger}")
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{field} of {owner} is ragged: every example needs the same shape") from None
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        found = "one number" if array.ndim == 0 else "integers beyond 64 bits"
        raise ValueError(f"{field} of {owner} must be a list of numbers, got {found}")
    if not array.size:
        raise ValueError(f"{field} of {owner} is empty: give it examples, or drop {owner}")
    if not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{field} of {owner} holds NaN, Inf or a number beyond float32: clean or drop such examples")
    return array


def labels(values: Any, owner: str) -> np.ndarray:
    """Return an array of words if all values are text, else `rows` of them."""
    if isinstance(values, list | tuple) and values and all(isinstance(value, str) for value in values):
        return np.asarray(values, object)  # not each with the room of the longest
    return rows(values, "y", owner)


def numbered(y: Sequence[np.ndarray], names: Sequence[str]) -> tuple[list[np.ndarray], tuple[str, ...] | None]:
    """Number all clients' labels if they are words, and return the words: label i was words[i]; None if labels are numbers."""
    texts = [array.dtype.kind == "O" for array in y]
    if not any(texts):
        return list(y), None
    if not all(texts):
        raise ValueError(f"y of {names[texts.index(True)]} holds words, and that of {names[texts.index(False)]} numbers: make them equal")
    words, label = np.unique(np.concatenate(list(y)), return_inverse=True)
    return np.split(label, np.cumsum([len(array) for array in y])[:-1]), tuple(words.tolist())


def joined(x: Sequence[np.ndarray], y: Sequence[np.ndarray], names: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Make one {"x", "y"} a client, checked against each other; y is int32 if no client has a float, else float32."""
    for field, arrays in (("x", x), ("y", y)):
        for array, name in zip(arrays, names, strict=True):
            if array.shape[1:] != arrays[0].shape[1:]:
                shapes = f"{list(array.shape[1:])} at {name} and {list(arrays[0].shape[1:])} at {names[0]}"
                raise ValueError(f"an example's {field} has the shape {shapes}: make them equal")
    for a, b, name in zip(x, y, names, strict=True):
        if len(a) != len(b):
            raise ValueError(f"{name} has {len(a)} examples in x and {len(b)} in y: every x needs one y")
        if b.dtype.kind != "f" and not -(2**31) <= b.min() <= b.max() < 2**31:
            raise ValueError(f"y of {name} goes from {b.min()} to {b.max()}, which does not fit int32: map labels to 0, 1, 2 ...")
    dtype = np.float32 if any(b.dtype.kind == "f" for b in y) else np.int32
    return [{"x": a, "y": b.astype(dtype)} for a, b in zip(x, y, strict=True)]


def _stranger(values: Any) -> str | None:
    """Return the type of the first value in nested lists that is no number, or None."""
    level = [values]
    while level:
        kinds = dict.fromkeys(map(type, level))
        for kind in kinds:
            if issubclass(kind, str) or not issubclass(kind, list | tuple | int | float | np.generic | np.ndarray):
                return kind.__name__
        deeper = any(issubclass(kind, list | tuple) for kind in kinds)
        level = list(chain.from_iterable(each for each in level if isinstance(each, list | tuple))) if deeper else []
    return None
