"""A run's folder: one line of metrics a round, checkpoints, and a summary that tells whether the run finished."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from fedjax_lite.base import State, Tree
from fedjax_lite.checkpoint import Checkpoints
from fedjax_lite.environment import environment
from fedjax_lite.hosts import agreed, by_leader, common, leads, wait_for_all
from fedjax_lite.report import report

__all__ = ["Records", "RunFolder", "holds_run", "named_leaves", "plain", "read_records", "records_of", "status_of", "toml_text"]

CONFIG, METRICS, SUMMARY, CHECKPOINTS = "config.toml", "metrics.jsonl", "summary.json", "checkpoints"
# What may differ when a run is resumed: how long it goes on, where its clients and their data lie. The data itself has a fingerprint.
FREE = ("name", "run", "engine", "data")
Records = list[dict[str, Any]]


class RunFolder:
    """Where a run is written. Lines are on disk before the checkpoint that vouches for them; the summary is replaced as a whole.

    Of several processes, which must all see the folder, the leading one writes; a state they write and read together.

    Args:
        path: the folder; made by `open`.
        facts: what a run must agree with to be resumed here, such as the fingerprint of its data.
        config: its settings; but for `FREE`, they must agree too.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], config: Mapping[str, Any] | None) -> None:
        self.path, self._facts, self._config = path, dict(facts), dict(config or {})
        from filelock import FileLock  # here, so that all that needs no folder runs where this package is absent

        self._toml = toml_text(self._config)
        self._lock = FileLock(path.resolve().with_name(f".{path.resolve().name}.lock"))
        self._checkpoints: Checkpoints | None = None
        self.latest: int | None = None  # the round of the last checkpoint
        self._before, self._started = 0.0, time.perf_counter()  # seconds of the run before it was resumed

    def open(self, state: State, resume: bool) -> tuple[State, Records]:
        """The state and the records to go on from; with nothing to resume, those given and none."""
        check_room(self.path, resume)
        wait_for_all("the folder is looked at")
        try:
            by_leader(lambda: self._take(resume))
            settings = {key: value for key, value in self._config.items() if key not in FREE}
            self._checkpoints = Checkpoints(self.path / CHECKPOINTS, self._facts | {"config": settings})
            self.latest = self._checkpoints.latest()
            if self.latest:
                state = self._checkpoints.restore(self.latest, state)
                self._before = _summary(self.path).get("seconds", 0.0)
            records = read_records(self.path, self.latest or 0)
            if len(records) != (self.latest or 0):
                raise ValueError(
                    f"{self.path / METRICS} holds {len(records)} whole lines of the {self.latest} rounds of the checkpoint: "
                    "it was edited or cut off; start anew without resume"
                )
        except BaseException:
            self._close()
            raise
        wait_for_all("the folder is read")
        self._check_seen()
        by_leader(lambda: self._written(lambda: self._begin(records)))
        return state, records

    def record(self, records: Records, new: int, state: State | None) -> None:
        """Add the lines of the last `new` records and, if a state is given, the checkpoint after them."""
        by_leader(lambda: self._written(lambda: _append(self.path / METRICS, _lines(records[len(records) - new :]))))
        if state is not None:
            self._save(records, state)
            by_leader(lambda: self._written(lambda: self._summarize("running", records)))

    def finish(self, status: str, records: Records, state: State, params: Tree, **more: Any) -> None:
        """Write what a finished, converged or interrupted run leaves, and more of the summary."""
        if records and self.latest != len(records):
            self._save(records, state)
        assert self._checkpoints
        self._checkpoints.wait()
        by_leader(lambda: self._written(lambda: self._end(status, records, params, more)))

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and leads():
            status = "diverged" if kind is FloatingPointError else "interrupted" if kind is KeyboardInterrupt else "failed"
            try:
                self._summarize(status, read_records(self.path), error=str(error))
            except OSError as another:  # as where the disk is full, which is what the first error says
                error.add_note(f"{self.path / SUMMARY} could not be written: {another.strerror}")
        self._close(error is not None)

    def _take(self, resume: bool) -> None:
        """Make the folder, and make sure that no other run writes to it."""
        from filelock import Timeout

        try:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            if not resume:
                move_aside(self.path)
            self.path.mkdir(exist_ok=True)
        except Timeout as error:
            raise ValueError(f"out={self.path} is being written by another run: wait for it, stop it, or name another folder") from error
        except OSError as error:
            raise ValueError(f"out={self.path} cannot be made: {error.strerror}; name another folder") from error

    def _check_seen(self) -> None:
        """Refuse a folder that is not the same for all processes: they would wait for each other's parts of a checkpoint for ever."""
        if jax.process_count() == 1:
            return
        token = self.path / f".seen.{common(time.time_ns() % 2**31)}"
        by_leader(token.touch)
        missing = agreed(not token.exists())
        by_leader(lambda: token.unlink())
        if missing:
            self._close(failed=True)
            raise ValueError(f"out={self.path} is not one folder that all processes see: give all the same one, on a shared disk")

    def _written(self, write: Callable[[], None]) -> None:
        """Write, or say where there was no room and how to go on."""
        try:
            write()
        except OSError as error:
            last = f"resume after round {self.latest}, which is saved whole" if self.latest else "start again"
            raise OSError(f"{self.path} could not be written ({error.strerror}): make room, then {last}") from error

    def _begin(self, records: Records) -> None:
        if self._toml:
            _replace(self.path / CONFIG, self._toml)
        _replace(self.path / METRICS, _lines(records))
        self._summarize("running", records)

    def _end(self, status: str, records: Records, params: Tree, more: dict[str, Any]) -> None:
        temporary = self.path / "params.partial"
        save_file(named_leaves(params), temporary)
        temporary.replace(self.path / "params.safetensors")
        self._summarize(status, records, **more)

    def _close(self, failed: bool = False) -> None:
        if self._checkpoints and not (failed and jax.process_count() > 1):  # it would wait for processes that may be gone
            self._checkpoints.close()
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _save(self, records: Records, state: State) -> None:
        assert self._checkpoints
        self._checkpoints.save(len(records), state)
        self.latest = len(records)

    def _summarize(self, status: str, records: Records, **more: Any) -> None:
        """The summary, and for a run that goes on no longer the report before it."""
        evaluated = (record for record in reversed(records) if any(name.startswith(("test_", "train_")) for name in record))
        summary = {
            "status": status,
            "rounds": len(records),
            "final": next(evaluated, records[-1] if records else {}),
            "seconds": round(self._before + time.perf_counter() - self._started, 3),
            **more,
            **{name: self._facts[name] for name in ("data", "test")},
            **environment(),
        }
        if status != "running":
            _replace(self.path / "report.html", report(self.path.absolute().name, summary, records, self._toml))
        _replace(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")


def check_room(out: Path, resume: bool) -> None:
    """Refuse to write where something else than a run is."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file: name a folder")
    if not resume and out.exists() and not holds_run(out) and any(out.iterdir()):
        raise ValueError(f"out={out} is not empty and holds no run: name another folder")


def move_aside(out: Path) -> None:
    """Make room where a run is already: nothing is lost, and the newest is where it is looked for."""
    if not holds_run(out):
        return
    number = 1
    while (aside := out.absolute().with_name(f"{out.absolute().name}.{number}")).exists():
        number += 1
    print(f"{out} held a run (status {status_of(out)}): moved to {aside}", file=sys.stderr)
    out.absolute().rename(aside)


def records_of(history: Mapping[str, np.ndarray], done: int) -> Records:
    """A segment's history `[rounds]` as one record a round; NaN, where nothing was counted, becomes None.

    >>> records_of({"loss": np.array([0.5, np.nan])}, done=10)
    [{'round': 11, 'loss': 0.5}, {'round': 12, 'loss': None}]
    """
    rounds = len(next(iter(history.values())))
    return [{"round": done + i + 1} | {name: plain(float(values[i])) for name, values in history.items()} for i in range(rounds)]


def read_records(folder: Path, up_to: int | None = None) -> Records:
    """The records of a folder, or of its first `up_to` rounds; from a line that a crash cut off on, nothing."""
    records: Records = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True)[:up_to] if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if not line.endswith("\n") or record.get("round") != len(records) + 1:
            break
        records.append(record)
    return records


def holds_run(folder: Path) -> bool:
    """Whether a folder holds (a part of) a run that a new one would destroy."""
    return any((folder / name).exists() for name in (METRICS, SUMMARY, CHECKPOINTS))


def status_of(folder: Path) -> str:
    """The status in a folder's summary; "unknown" where there is none."""
    return _summary(folder).get("status", "unknown")


def named_leaves(params: Tree) -> dict[str, np.ndarray]:
    """A model's leaves by path: "Dense_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
    return {jax.tree_util.keystr(path, simple=True, separator="/") or "params": np.array(leaf, order="C") for path, leaf in leaves}


def toml_text(values: Mapping[str, Any]) -> str:
    """TOML with each list of plain values on one line.

    >>> print(toml_text({"hidden": [200, 200]}), end="")
    hidden = [200, 200]
    """
    import tomli_w

    return re.sub(
        r"\[\n((?: *[^\[\]{}\n]+,\n)+) *\]",
        lambda match: f"[{' '.join(line.strip() for line in match[1].splitlines())[:-1]}]",
        tomli_w.dumps(values),
    )


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def plain(value: Any) -> Any:
    """A record as it is read back from JSON, which has no NaN and no infinity: None stands for both."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(records: Records) -> str:
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def _append(path: Path, text: str) -> None:
    """Add to a file, and return when it is on disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
