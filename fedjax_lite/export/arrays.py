"""A model's parameters as a list of NumPy arrays, which other federated programs exchange."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.refuse import short
from fedjax_lite.tree import paths_of

__all__ = ["arrays", "from_arrays"]


def arrays(params: Tree) -> list[np.ndarray]:
    """Copy a model's leaves to the host, as a list in the order of their sorted paths: `sorted(fl.leaves.paths_of(params))`.

    A bias comes before its kernel, and kernels are [in, out] and [height, width, in, out], other than in a list of a PyTorch module's.

    >>> [x.shape for x in arrays({"Dense_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}})]
    [(3,), (2, 3)]
    """
    leaves = jax.tree.leaves(jax.device_get(params))
    return [np.array(leaf, order="C") for _, leaf in sorted(zip(paths_of(params), leaves, strict=True), key=lambda pair: pair[0])]


def from_arrays(arrays: Sequence[Any], like: Tree) -> Tree:
    """Put a list of arrays, in the order of `fl.export.arrays`, back into a model's structure.

    Args:
        arrays: one for each leaf, of its shape; of another precision they are cast.
        like: a tree of the same structure: what `model.init` returns, or its shapes.

    Returns:
        A tree like `like`.

    Raises:
        ValueError: for more arrays or fewer, and for one of another shape or kind of numbers; names the leaf.

    >>> like = {"Dense_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}
    >>> from_arrays([np.ones(3), np.zeros((2, 3))], like)["Dense_0"]["bias"].tolist()
    [1.0, 1.0, 1.0]
    """
    paths, leaves = paths_of(like), jax.tree.leaves(like)
    order = sorted(range(len(paths)), key=paths.__getitem__)
    if len(arrays) != len(paths):
        leaves_are = short(", ".join(paths[k] for k in order), 1000)
        raise ValueError(f"from_arrays: {len(arrays)} arrays for a model of {len(paths)} leaves: {leaves_are}: give one for each, in order")
    placed: list[Any] = [None] * len(paths)
    for number, (k, array) in enumerate(zip(order, arrays, strict=True)):
        placed[k] = checked(f"from_arrays: arrays[{number}], which is the leaf {paths[k]!r},", array, leaves[k])
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def checked(what: str, array: Any, like: Any) -> jax.Array:
    """Return an array with the dtype of a leaf, once its shape and kind of numbers are the leaf's.

    Raises:
        ValueError: naming `what`, which of the two is found, and which is needed.
    """
    array = np.asarray(array)
    kind, wanted = array.dtype, jnp.result_type(like)
    if array.shape != jnp.shape(like) or jnp.issubdtype(kind, jnp.floating) != jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(
            f"{what} should be {wanted}{list(jnp.shape(like))}, and is {kind}{list(array.shape)}: give the parameters of this very model"
        )
    return jnp.asarray(array, wanted)
