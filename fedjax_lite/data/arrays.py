"""Check host arrays before they become data, and describe them: labels, lengths, fingerprint."""

import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree


def check_examples(examples: Tree, sizes: np.ndarray, classes: int | None = None, allow_empty: bool = False, first: int = 0) -> Tree:
    """Check host arrays sorted by client and cast them to jax's dtypes; an error names leaf and client, counted from `first`."""
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
            finite = np.isfinite(leaf)
            if not finite.all():
                bad = ~finite.all(axis=tuple(range(1, leaf.ndim)))
                row = int(np.flatnonzero(bad)[0])
                name = jax.tree_util.keystr(path) or "the array"
                raise ValueError(f"leaf {name} of client {owner[row]} holds NaN or Inf ({bad.sum()} such examples): clean or drop them")
    if classes is not None and isinstance(examples, dict) and "y" in examples:
        labels = examples["y"]
        if found := stranger(labels, classes):
            row, number = found
            raise ValueError(
                f"label {shown(labels, row)} of client {owner[row]} is out of range: classes={classes} admits 0..{classes - 1} "
                f"({number} such examples); raise classes or map the labels"
            )
        examples = examples | {"y": labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.int32)}
    return examples


def stranger(labels: np.ndarray, classes: int | float = np.inf, ignore: int | None = None) -> tuple[int, int] | None:
    """Find labels that are no whole numbers in [0, classes) and not `ignore`; return the first example's row and their number, or None."""
    bad: Any = ~((labels >= 0) & (labels < classes))  # True for NaN too
    if np.issubdtype(labels.dtype, np.inexact):
        bad = bad | (labels != np.floor(labels))
    if ignore is not None:
        bad = bad & (labels != ignore)
    bad = bad.reshape(len(labels), -1).any(axis=1)
    return (int(np.flatnonzero(bad)[0]), int(bad.sum())) if bad.any() else None


def shown(labels: Any, row: int) -> str:
    """Write the label or labels of the example in `row`."""
    return str(np.asarray(labels[row]).tolist())


def check_alike(data: Any, test: Any) -> None:
    """Refuse held-out examples whose shapes differ from the training examples'.

    Raises:
        ValueError: with the leaf and both shapes.
    """
    ours, theirs = (dict(jax.tree_util.tree_leaves_with_path(part.example)) for part in (data, test))
    for path, x in theirs.items():
        if path in ours and np.shape(x) != np.shape(ours[path]):
            name, shapes = jax.tree_util.keystr(path) or "the array", (list(np.shape(x)), list(np.shape(ours[path])))
            raise ValueError(f"test: leaf {name} has the shape {shapes[0]} an example, the training data's {shapes[1]}")


def on_host(arrays: Tree, whose: str) -> Tree:
    """Turn leaves into NumPy arrays.

    Raises:
        ValueError: for an array with masked values, which NumPy would unmask, and for a structured array; names `whose` leaf.
    """

    def leaf(path, x):
        if isinstance(x, jax.core.Tracer):
            raise TypeError(f"{whose} holds traced arrays: make data outside jit and hand it in as an argument")
        array = np.asarray(x)
        name = jax.tree_util.keystr(path) or "the array" if array.dtype.names or isinstance(x, np.ma.MaskedArray) else ""
        if name and np.ma.is_masked(x):
            raise ValueError(f"{whose}: leaf {name} is a masked array, of which {np.ma.count_masked(x)} are masked: drop or fill these")
        if array.dtype.names:
            raise ValueError(f"{whose}: leaf {name} has the fields {', '.join(array.dtype.names)}: make each a leaf of its own")
        return array

    return jax.tree_util.tree_map_with_path(leaf, arrays)


def client_of(data: Any, row: int) -> int:
    """Return the id of the client that has the example in `row`."""
    return int(np.searchsorted(np.asarray(data.start) + np.asarray(data.size), row, side="right"))


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an empty array at an address that 64 divides, which a CPU's jax takes over by `device_put` without a copy."""
    size = math.prod(shape)
    whole = np.empty(size + 64, dtype)
    first = -whole.ctypes.data % 64 // max(whole.itemsize, 1)
    return whole[first : first + size].reshape(shape)


def gathered(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the `rows` of an array in an `aligned` copy."""
    copy = aligned((len(rows), *array.shape[1:]), array.dtype)
    return np.take(array, rows, axis=0, out=copy, mode="clip")  # rows are in range, and for "raise" NumPy makes a second copy


def _cast(path: Any, x: np.ndarray) -> np.ndarray:
    """Cast float64 and int64 to jax's defaults (float32 and int32 unless x64 is on); refuse dtypes that are no numbers."""
    name = jax.tree_util.keystr(path) or "the array"
    if x.dtype.kind in "OSUMm":
        words = ", of words for instance np.unique(words, return_inverse=True)[1]" if x.dtype.kind in "OSU" else ""
        raise ValueError(f"leaf {name} holds {x.dtype}, not numbers: make it an array of numbers{words}")
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if np.issubdtype(x.dtype, np.integer) and x.size and not np.iinfo(dtype).min <= x.min() <= x.max() <= np.iinfo(dtype).max:
        raise ValueError(f"leaf {name} holds {x.min()}..{x.max()}, which does not fit {dtype}: map the values to a smaller range")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes Inf, which `check_examples` refuses with its client
        return x.astype(dtype, copy=False)


def fingerprint(examples: Tree, size: Any) -> dict[str, Any]:
    """Return the numbers of clients and examples, and a hash of every byte."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path((examples, size)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return {"clients": len(size), "examples": int(np.sum(size)), "sha256": digest.hexdigest()[:16]}


def labels_of(examples: Tree) -> np.ndarray | None:
    """Return the leaf named "y" if it holds one integer an example, else None."""
    labels = examples.get("y") if isinstance(examples, dict) else None
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    return np.asarray(labels)


def length_of(arrays: Tree, name: str) -> int:
    """Return the length that all leaves share; an error names the leaves' owner, `name`."""
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
