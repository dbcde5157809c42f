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
        folder: made if absent.
        identity: what a checkpoint must agree with to be resumed: nested dicts of JSON values.
        keep: how many of the last checkpoints stay.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = 2) -> None:
        import orbax.checkpoint as ocp  # half a second to import, and only a run on disk needs it

        self._ocp = ocp
        self._identity = json.loads(json.dumps(identity))
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix="round", create=True)
        )

    def latest(self) -> int | None:
        """The round of the last whole checkpoint."""
        return self._manager.latest_step()

    def save(self, round: int, state: State) -> None:
        """Start writing a state; a crash before it is whole leaves the one before."""
        arguments = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(_storable(state)), identity=self._ocp.args.JsonSave(self._identity)
        )
        self._manager.save(round, args=arguments)

    def restore(self, round: int, template: State) -> State:
        """The state saved after `round` rounds.

        Raises:
            ValueError: if the checkpoint belongs to another configuration; names the first difference.
        """
        saved = self._manager.restore(round, args=self._ocp.args.Composite(identity=self._ocp.args.JsonRestore()))["identity"]
        difference = _first_difference(saved, self._identity)
        if difference:
            raise ValueError(
                f"the checkpoint in {self._manager.directory} belongs to another configuration: {difference}; "
                "resume with the configuration it was made with, or start in another folder"
            )
        abstract = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, _storable(template))
        restored = self._manager.restore(round, args=self._ocp.args.Composite(state=self._ocp.args.StandardRestore(abstract)))["state"]
        return _restored(restored, template)

    def wait(self) -> None:
        """Return when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and let go of the folder."""
        self._manager.close()


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _storable(state: State) -> Tree:
    """Random keys as plain words, in a dict of leaves by path: independent of the classes a state is made of."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): jax.random.key_data(leaf) if _is_key(leaf) else leaf for path, leaf in leaves}


def _restored(stored: Tree, template: State) -> State:
    def leaf(path, like):
        value = stored[jax.tree_util.keystr(path)]
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like)) if _is_key(like) else value

    return jax.tree_util.tree_map_with_path(leaf, template)


def _first_difference(saved: Any, current: Any, path: str = "") -> str:
    if isinstance(saved, dict) and isinstance(current, dict):
        for key in sorted(saved.keys() | current.keys()):
            difference = _first_difference(saved.get(key), current.get(key), f"{path}.{key}" if path else key)
            if difference:
                return difference
        return ""
    return "" if saved == current else f"{path} was {saved!r}, is now {current!r}"
