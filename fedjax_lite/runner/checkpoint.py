"""Checkpoints: the state of a run on disk, whole or not at all."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import State
from fedjax_lite.runner.host_rows import Touched
from fedjax_lite.runner.identity import first_difference
from fedjax_lite.tree import keys_again, words

__all__ = ["Checkpoints"]

TOUCHED = "touched"  # the key of client ids beside a state's paths; paths begin with a dot, so none is equal


class Checkpoints:
    """Keep the last states of a run in a folder (orbax), beside the identity of that run.

    Args:
        folder: made if absent; files that a killed process left half written are removed.
        identity: nested dicts of JSON values; a checkpoint is restored only if its identity is equal.
        keep: how many of the last checkpoints stay.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = 2) -> None:
        import orbax.checkpoint as ocp  # half a second to import, and only a run on disk needs it

        self._ocp = ocp
        self._identity = json.loads(json.dumps(identity))
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix="round", create=True, cleanup_tmp_directories=True)
        kinds = {"state": ocp.StandardCheckpointHandler(), "identity": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=kinds)

    def latest(self) -> int | None:
        """Return the round of the last checkpoint; None without a checkpoint."""
        return self._manager.latest_step()

    def oldest(self) -> int | None:
        """Return the round of the first checkpoint that is left; None without a checkpoint."""
        return min(self._manager.all_steps(), default=None)

    def save(self, round: int, state: State) -> None:
        """Start writing `state`; a crash before the end leaves the checkpoint before it whole.

        Raises:
            OSError: if this checkpoint, or the checkpoint before it, cannot be written.
        """
        arguments = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(_storable(state)), identity=self._ocp.args.JsonSave(self._identity)
        )
        with self._writing():
            self._manager.save(round, args=arguments)
            if isinstance(state.own, Touched):  # rows in host memory change in place, so writing must end first
                self._manager.wait_until_finished()

    def restore(self, round: int, template: State) -> State:
        """Return the state saved after `round` rounds, in the classes and with the kinds of random keys of `template`.

        Own and uplink rows may be `Touched` in the checkpoint and whole in `template`, or the other way round.

        Raises:
            ValueError: if the checkpoint belongs to another configuration, naming the first difference, or cannot be read.
        """
        with self._reading(round):
            saved = self._manager.restore(round, args=self._ocp.args.Composite(identity=self._ocp.args.JsonRestore()))["identity"]
        difference = first_difference(saved, self._identity)
        if difference:
            raise ValueError(
                f"the checkpoint in {self._manager.directory} belongs to another configuration: {difference}; "
                "resume with the configuration it was made with, or start in another folder"
            )
        like = _storable(template)

        def abstract(path, saved):
            """Return the shape and place to restore to: the template's, or host memory for a leaf of another shape."""
            same = path in like and like[path].shape == saved.shape
            return self._ocp.utils.to_shape_dtype_struct(like[path]) if same else np.zeros(saved.shape, saved.dtype)

        with self._reading(round):
            shapes = self._manager.item_metadata(round)["state"].tree
            wanted = {path: abstract(path, saved) for path, saved in shapes.items()}
            stored = self._manager.restore(round, args=self._ocp.args.Composite(state=self._ocp.args.StandardRestore(wanted)))["state"]
        return _restored(_laid_out(stored, template), template)

    def wait(self) -> None:
        """Return when every saved state is on disk.

        Raises:
            OSError: if a checkpoint cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn orbax's errors, of a disk that is full or gone, into an OSError that names the folder; silence orbax's log."""
        log = logging.getLogger("absl")
        before = log.level
        log.setLevel(logging.CRITICAL)  # orbax logs how long it waits, and each failure more than once
        try:
            yield
        except Exception as error:
            last = self.latest()
            why = _first_line(error).rsplit('": ', 1)[-1]  # the reason stands after the paths of files inside
            raise OSError(
                f"no checkpoint could be written to {self._manager.directory} ({why}): make room, then "
                + (f"resume after round {last}, which is saved whole" if last else "start again")
            ) from error
        finally:
            log.setLevel(before)

    def close(self) -> None:
        """Finish writing and let go of the folder."""
        self._manager.close()

    @contextmanager
    def _reading(self, round: int) -> Iterator[None]:
        """Turn orbax's errors into a ValueError that names the folder of this checkpoint."""
        try:
            yield
        except Exception as error:  # orbax raises errors of many types for damaged files
            folder = self._manager.directory / f"round_{round}"
            raise ValueError(
                f"{folder} cannot be read: remove that folder to go on from the checkpoint before it, if any ({_first_line(error)})"
            ) from error


def _storable(state: State) -> dict[str, Any]:
    """Return the state's leaves by path, without its classes; random keys as integer words, without empty leaves, which orbax refuses.

    Rows in host memory have the paths of rows on the device; "touched" holds the ids of their clients.
    """
    ids = {TOUCHED: state.own.ids} if isinstance(state.own, Touched) else {}
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(_bare(state))} | ids
    return words({path: leaf for path, leaf in leaves.items() if leaf.size})


def _bare(state: State) -> State:
    """Return `state` with plain rows in place of `Touched`."""
    own, uplink = (part.rows if isinstance(part, Touched) else part for part in (state.own, state.uplink))
    return state._replace(own=own, uplink=uplink)


def _laid_out(stored: dict[str, Any], template: State) -> dict[str, Any]:
    """Lay own and uplink rows out as in `template`: on the host for touched clients, or on the device for the population."""
    rows = [path for path in stored if path.startswith((".own", ".uplink"))]
    if isinstance(template.own, Touched):
        ids = {} if TOUCHED in stored or not rows else {TOUCHED: np.arange(len(stored[rows[0]]), dtype=np.int32)}
        return stored | ids | {path: np.asarray(stored[path]) for path in rows}
    if TOUCHED in stored:
        ids, like = stored.pop(TOUCHED), _storable(template)
        return stored | {path: like[path].at[ids].set(stored[path]) for path in rows}
    return stored


def _restored(stored: dict[str, Any], template: State) -> State:
    """Build a state in the classes of `template` from leaves by path; a leaf that was not stored stays the template's."""
    ids = stored.get(TOUCHED, ())

    def leaf(path, like):
        name = jax.tree_util.keystr(path)
        if name not in stored and name.startswith((".own", ".uplink")) and isinstance(template.own, Touched):
            return np.empty((len(ids), *like.shape[1:]), like.dtype)
        return keys_again(stored[name], like) if name in stored else like

    state = jax.tree_util.tree_map_with_path(leaf, _bare(template))
    if not isinstance(template.own, Touched):
        return state
    return state._replace(own=Touched(np.asarray(ids, np.int32), state.own), uplink=Touched(np.asarray(ids, np.int32), state.uplink))


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text; its type's name where the text is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
