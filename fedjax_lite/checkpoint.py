"""Checkpoints: the state of a run on disk, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from fedjax_lite.base import State, Tree

__all__ = ["Checkpoints"]


class Checkpoints:
    """The last states of a run in a folder (orbax), beside the identity of the run they belong to.

    Args:
        folder: made if absent; what a killed process left half written is removed.
        identity: what a checkpoint must agree with to be resumed: nested dicts of JSON values.
        keep: how many of the last checkpoints stay.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = 2) -> None:
        import orbax.checkpoint as ocp  # half a second to import, and only a run on disk needs it

        self._ocp = ocp
        self._identity = json.loads(json.dumps(identity))
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix="round", create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """The round of the last checkpoint."""
        return self._manager.latest_step()

    def save(self, round: int, state: State) -> None:
        """Start writing a state; a crash before it is whole leaves the one before."""
        arguments = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(_storable(state)), identity=self._ocp.args.JsonSave(self._identity)
        )
        self._manager.save(round, args=arguments)

    def restore(self, round: int, template: State) -> State:
        """The state saved after `round` rounds, in the classes and with the random keys of `template`.

        Raises:
            ValueError: if the checkpoint belongs to another configuration, naming the first difference, or cannot be read.
        """
        saved = self._read(round, identity=self._ocp.args.JsonRestore())["identity"]
        difference = _first_difference(saved, self._identity)
        if difference:
            raise ValueError(
                f"the checkpoint in {self._manager.directory} belongs to another configuration: {difference}; "
                "resume with the configuration it was made with, or start in another folder"
            )
        abstract = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, _storable(template))
        return _restored(self._read(round, state=self._ocp.args.StandardRestore(abstract))["state"], template)

    def wait(self) -> None:
        """Return when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and let go of the folder."""
        self._manager.close()

    def _read(self, round: int, **items: Any) -> Any:
        try:
            return self._manager.restore(round, args=self._ocp.args.Composite(**items))
        except Exception as error:  # orbax raises many kinds for files that are damaged
            folder = self._manager.directory / f"round_{round}"
            raise ValueError(
                f"{folder} cannot be read: remove that folder to go on from the checkpoint before it, if any ({error})"
            ) from error


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _storable(state: State) -> Tree:
    """Leaves by path, independent of the classes a state is made of; random keys as plain words; empty leaves, which orbax
    refuses, left out."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): jax.random.key_data(leaf) if _is_key(leaf) else leaf for path, leaf in leaves if leaf.size}


def _restored(stored: Tree, template: State) -> State:
    def leaf(path, like):
        value = stored.get(jax.tree_util.keystr(path), like)
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like)) if _is_key(like) and like.size else value

    return jax.tree_util.tree_map_with_path(leaf, template)


def _first_difference(saved: Any, current: Any, path: str = "") -> str:
    """The first key, in alphabetical order, at which two nested dicts or lists differ, with both values."""
    if isinstance(saved, dict) and isinstance(current, dict):
        pairs = [(f"{path}.{key}" if path else key, saved.get(key, _ABSENT), current.get(key, _ABSENT)) for key in sorted(saved | current)]
    elif isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(saved, current, strict=True))]
    else:
        return "" if saved == current else f"{path} was {_short(saved)}, is now {_short(current)}"
    return next(filter(None, (_first_difference(a, b, key) for key, a, b in pairs)), "")


_ABSENT = object()


def _short(value: Any) -> str:
    text = "not set" if value is _ABSENT else repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
