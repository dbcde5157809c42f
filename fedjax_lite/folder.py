"""A run's folder: one line of metrics a round, checkpoints, and a summary that tells whether the run finished."""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from fedjax_lite.base import State, Tree
from fedjax_lite.checkpoint import Checkpoints
from fedjax_lite.report import write_report

METRICS, SUMMARY, CHECKPOINTS = "metrics.jsonl", "summary.json", "checkpoints"
Records = list[dict[str, Any]]


class RunFolder:
    """Where a run is written. Lines are on disk before the checkpoint that vouches for them; the summary is replaced as a whole.

    Args:
        path: the folder; made by `open`.
        identity: what a run must agree with to be resumed here.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self._identity, self._started = path, dict(identity), time.perf_counter()

    def open(self, state: State, resume: bool) -> tuple[State, Records]:
        """The state and the records to go on from; with nothing to resume, those given and none.

        Raises:
            ValueError: if the folder holds something that a new run would destroy.
        """
        if not resume and holds_run(self.path):
            raise ValueError(
                f"out={self.path} holds a run already (status {status_of(self.path)}): resume it, name another folder, or remove it"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(self.path / CHECKPOINTS, self._identity)
        done = self._checkpoints.latest() or 0 if resume else 0
        if done:
            state = self._checkpoints.restore(done, state)
        records = read_records(self.path, done)
        if len(records) != done:
            raise ValueError(
                f"{self.path / METRICS} holds {len(records)} whole lines, the checkpoint {done} rounds: it was edited or cut off; start anew"
            )
        _replace(self.path / METRICS, _lines(records))
        self._summarize("running", records)
        return state, records

    def record(self, records: Records, state: State | None) -> None:
        """Add the records of a segment and, if a state is given, the checkpoint after it."""
        with open(self.path / METRICS, "a") as file:
            file.write(_lines(records))
            file.flush()
            os.fsync(file.fileno())
        if state is not None:
            self._checkpoints.save(records[-1]["round"], state)

    def finish(self, status: str, records: Records, state: State, params: Tree) -> None:
        """Write what a finished, converged or interrupted run leaves."""
        if records and self._checkpoints.latest() != records[-1]["round"]:
            self._checkpoints.save(records[-1]["round"], state)
        self._checkpoints.wait()
        temporary = self.path / "params.partial"
        save_file(named_leaves(params), temporary)
        temporary.replace(self.path / "params.safetensors")
        self._summarize(status, records)
        write_report(self.path, records)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._checkpoints.close()
        if error is not None:
            records = read_records(self.path, 2**31)
            status = "diverged" if kind is FloatingPointError else "interrupted" if kind is KeyboardInterrupt else "failed"
            self._summarize(status, records, error=str(error))
            write_report(self.path, records)

    def _summarize(self, status: str, records: Records, **more: Any) -> None:
        evaluated = [record for record in records if any(name.startswith(("test_", "train_")) for name in record)]
        summary = {
            "status": status,
            "rounds": records[-1]["round"] if records else 0,
            "final": (evaluated or records or [{}])[-1],
            "seconds": round(time.perf_counter() - self._started, 3),
            **more,
            **{key: self._identity[key] for key in ("data", "test") if key in self._identity},
            **environment(),
        }
        _replace(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")


def records_of(history: Mapping[str, np.ndarray], done: int) -> Records:
    """A segment's history `[rounds]` as one record a round; NaN, where nothing was counted, becomes null."""
    rounds = len(next(iter(history.values())))
    return [{"round": done + i + 1} | {name: _number(values[i]) for name, values in history.items()} for i in range(rounds)]


def read_records(folder: Path, up_to: int) -> Records:
    """The records of the first `up_to` rounds; a last line that a crash cut off is left out."""
    records = []
    path = folder / METRICS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record["round"] <= up_to:
            records.append(record)
    return records


def holds_run(folder: Path) -> bool:
    """Whether a folder holds (a part of) a run that a new one would destroy."""
    return any((folder / name).exists() for name in (METRICS, SUMMARY, CHECKPOINTS))


def status_of(folder: Path) -> str:
    """The status in a folder's summary; "unknown" where there is none."""
    path = folder / SUMMARY
    return json.loads(path.read_text())["status"] if path.exists() else "unknown"


def named_leaves(params: Tree) -> dict[str, np.ndarray]:
    """A model's leaves by path: "Dense_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
    return {jax.tree_util.keystr(path, simple=True, separator="/") or "params": np.asarray(leaf) for path, leaf in leaves}


def environment() -> dict[str, Any]:
    """What a result depends on beside its configuration and data: code, versions, device."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode() + source.read_bytes())
    versions = {name: version(name) for name in ("fedjax-lite", "jax", "jaxlib", "optax", "flax", "numpy")}
    device = jax.devices()[0]
    return {
        "code": {"sha256": digest.hexdigest()[:16], "python": platform.python_version()} | versions,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count(), "cores": os.cpu_count()},
    }


def _number(x: Any) -> float | None:
    value = float(x)
    return value if math.isfinite(value) else None


def _lines(records: Records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
