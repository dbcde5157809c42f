"""Write a model's leaves by path to params.safetensors, and read the file back into a tree."""

import errno
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedjax_lite.base import Tree
from fedjax_lite.leaves import paths_of
from fedjax_lite.runner.files import replacing

__all__ = ["load_params", "named_leaves", "save_leaves", "save_params"]

PARAMS, BEST = "params.safetensors", "best.safetensors"


def named_leaves(params: Tree) -> dict[str, np.ndarray]:
    """Copy a model's leaves to the host, by path: "Dense_0/kernel"."""
    leaves = jax.tree.leaves(jax.device_get(params))
    return {name: np.array(leaf, order="C") for name, leaf in zip(paths_of(params), leaves, strict=True)}


def save_leaves(path: Path, leaves: Mapping[str, np.ndarray]) -> None:
    """Write leaves by name to a safetensors file, whole or not at all.

    Raises:
        OSError: if the disk refuses; names the file.
    """
    with replacing(path) as temporary:
        try:
            save_file(dict(leaves), temporary)
        except SafetensorError as error:  # of a full disk, too
            raise OSError(errno.EIO, str(error), str(path)) from error


def save_params(folder: Path, params: Tree, name: str = PARAMS) -> None:
    """Write a model into a folder, whole or not at all."""
    save_leaves(folder / name, named_leaves(params))


def load_params(path: str | Path, like: Tree) -> Tree:
    """Load a model that a run has written, into the structure of another model.

    Args:
        path: a run's folder, or the file in it.
        like: a tree of the same structure: what `model.init` returns, or its shapes.

    Returns:
        The tree with the leaves of the file.

    Raises:
        ValueError: for a file that cannot be read, and for leaves that are missing, too many, or of another shape or dtype.

    >>> import fedjax_lite as fl
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_params(folder, {"w": jnp.arange(3.0)})
    >>> fl.load_params(folder, {"w": jnp.zeros(3)})["w"].tolist()
    [0.0, 1.0, 2.0]
    """
    path = Path(path).expanduser()
    path = path / PARAMS if path.is_dir() else path
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    names, wanted = paths_of(like), jax.tree.leaves(like)
    for name, leaf in zip(names, wanted, strict=True):
        expected = f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        held = f"{stored[name].dtype}{list(stored[name].shape)}" if name in stored else "no such leaf"
        if expected != held:
            raise ValueError(f"{path}: leaf {name!r} should be {expected}, the file has {held}: give the model that the run trained")
    if more := sorted(stored.keys() - set(names)):
        raise ValueError(f"{path} also has the leaf {more[0]!r}: give the model that the run trained")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(stored[name]) for name in names])
