"""Host arrays on their way to being data: what is wrong with them, and what they are in short."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree


def checked(examples: Tree, sizes: np.ndarray, classes: int | None = None, allow_empty: bool = False, first: int = 0) -> Tree:
    """Sorted host arrays in jax's dtypes, of clients `first`, first + 1, ...; what is wrong with them is said with leaf and client."""
    owner = first + np.repeat(np.arange(len(sizes)), sizes)
    if not allow_empty and (sizes == 0).any():
        empty = np.flatnonzero(sizes == 0)
        raise ValueError(
            f"client {first + empty[0]} has no examples ({len(empty)} of {len(sizes)} clients have none): drop it, or pass "
            "allow_empty=True (it then never weighs in a round)"
        )
    examples = jax.tree_util.tree_map_with_path(_cast, examples)
    for path, leaf in jax.tree_util.tree_leaves_with_path(examples):
        if jnp.issubdtype(leaf.dtype, np.inexact):
            bad = ~np.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                name = jax.tree_util.keystr(path) or "the array"
                raise ValueError(f"leaf {name} of client {owner[row]} holds NaN or Inf ({bad.sum()} such examples): clean or drop them")
    labels = labels_of(examples)
    if classes is not None and labels is not None:
        bad = (labels < 0) | (labels >= classes)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"label {labels[row]} of client {owner[row]} is out of range: classes={classes} admits 0..{classes - 1} "
                f"({bad.sum()} such examples); raise classes or map the labels"
            )
    return examples


def _cast(path: Any, x: np.ndarray) -> np.ndarray:
    """Python's float64 and int64 become jax's defaults (float32 and int32 unless x64 is on)."""
    name = jax.tree_util.keystr(path) or "the array"
    if x.dtype.kind in "OSUMm":
        raise ValueError(f"leaf {name} holds {x.dtype}, not numbers: make it an array of numbers")
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if np.issubdtype(x.dtype, np.integer) and x.size and not np.iinfo(dtype).min <= x.min() <= x.max() <= np.iinfo(dtype).max:
        raise ValueError(f"leaf {name} holds {x.min()}..{x.max()}, which does not fit {dtype}: map the values to a smaller range")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf, which is reported with its client
        return x.astype(dtype, copy=False)


def fingerprint(examples: Tree, size: Any) -> dict[str, Any]:
    """Counts and a hash of every byte, read where it lies."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path((examples, size)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return {"clients": len(size), "examples": int(np.sum(size)), "sha256": digest.hexdigest()[:16]}


def labels_of(examples: Tree) -> np.ndarray | None:
    """The leaf named "y", if it holds one integer an example."""
    labels = examples.get("y") if isinstance(examples, dict) else None
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    return np.asarray(labels)


def length_of(arrays: Tree, name: str) -> int:
    """The length that all leaves share; `name` says whose leaves they are where they do not."""
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(arrays)}
    if not leaves:
        raise ValueError(f"{name} holds no arrays")
    for path, x in leaves.items():
        if not x.ndim:
            raise ValueError(f"{name}: leaf {path} is a single number, not an array of examples: wrap lists in np.array")
    lengths = {path: len(x) for path, x in leaves.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name}: leaves must be arrays of one length, got {lengths}")
    return next(iter(lengths.values()))
