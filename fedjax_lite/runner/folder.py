"""A run's folder: a line of metrics for each round, checkpoints, and a summary with the run's status."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from fedjax_lite.base import State, Tree
from fedjax_lite.report import report
from fedjax_lite.runner.architecture import save_architecture
from fedjax_lite.runner.checkpoint import Checkpoints
from fedjax_lite.runner.client_table import MOST_LABELS, save_table
from fedjax_lite.runner.files import append, move_aside, read_or_empty, resolve_folder, toml_text, write
from fedjax_lite.runner.hosts import agreed, by_leader, common, leads, wait_for_all
from fedjax_lite.runner.model_file import BEST, save_params
from fedjax_lite.runner.records import METRICS, Records, lines_of, read_records
from fedjax_lite.runner.summary import summarized

__all__ = ["RunFolder"]

CONFIG, SUMMARY, WORDS, CHECKPOINTS = "config.toml", "summary.json", "words.json", "checkpoints"
# Settings that may differ when a run is resumed, since its numbers do not depend on them. The data itself has a fingerprint.
FREE = ("name", "run", "engine", "data", "baselines", "expected")


class RunFolder:
    """The folder that a run writes: lines of a round are on disk before its checkpoint; the summary is replaced as a whole.

    All processes must see the folder. The leading process writes the files; all processes write and read a state together.

    Args:
        path: the folder; made by `open`.
        facts: values by name, such as the data's fingerprint; a run is resumed here only if its facts are equal.
        config: the run's settings; all but `FREE` must be equal too.
        notes: further entries of the summary.
    """

    def __init__(
        self, path: Path, facts: Mapping[str, Any], config: Mapping[str, Any] | None, notes: Mapping[str, Any] | None = None
    ) -> None:
        self._notes = dict(notes or {})
        self.summary: dict[str, Any] = {}  # the last one that this process wrote
        self.path, self._facts, self._config = resolve_folder(path), dict(facts), dict(config or {})
        from filelock import FileLock  # here, so that a run without a folder works where filelock is absent

        self._toml = toml_text(self._config)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        self._checkpoints: Checkpoints | None = None
        self.latest: int | None = None  # the round of the last checkpoint
        self._goes_on = False  # True after the first write: a resumed run's files stay as they are until its first new round
        self._before, self._started = 0.0, time.perf_counter()  # seconds that the run took before it was resumed, and the clock now

    def open(self, state: State, resume: bool) -> tuple[State, Records]:
        """Return state and records of the last checkpoint to resume from; without a checkpoint, `state` and no records."""
        wait_for_all("the folder is looked at")
        try:
            by_leader(lambda: self._take(resume))
            settings = {key: value for key, value in self._config.items() if key not in FREE}
            self._checkpoints = Checkpoints(self.path / CHECKPOINTS, self._facts | {"config": settings})
            self.latest = self._checkpoints.latest()
            if self.latest:
                state = self._checkpoints.restore(self.latest, state)
                self._before = _seconds(self.path)
            records = read_records(self.path, self.latest or 0)
            if len(records) != (self.latest or 0):
                raise ValueError(
                    f"{self.path / METRICS} holds {len(records)} whole lines of the {self.latest} rounds of the checkpoint: "
                    f"line {len(records) + 1} was edited or cut off; start anew without resume"
                )
        except BaseException:
            self._close()
            raise
        try:
            wait_for_all("the folder is read")
            self._check_seen()
            if not self.latest:
                self._go_on(records)
        except BaseException:
            self._close(failed=True)
            raise
        return state, records

    def record(self, records: Records, new: int, state: State | None) -> None:
        """Append the lines of the last `new` records; if `state` is given, save it as the checkpoint after them."""
        self._go_on(records[: len(records) - new])
        by_leader(lambda: self.written(lambda: append(self.path / METRICS, lines_of(records[len(records) - new :]))))
        if state is not None:
            self._save(records, state)
            by_leader(lambda: self.written(lambda: self._summarize("running", records)))

    @property
    def oldest(self) -> int:
        """The round of the first checkpoint that is left; 0 where there is none."""
        return (self._checkpoints and self._checkpoints.oldest()) or 0

    def finish(
        self,
        status: str,
        records: Records,
        state: State,
        params: Tree,
        table: Mapping[str, Any],
        best_params: Tree | None = None,
        **more: Any,
    ) -> None:
        """Write the last checkpoint, the models, the table of clients, the report and the summary, with the entries `more`."""
        self._go_on(records)
        if records and self.latest != len(records):
            self._save(records, state)
        assert self._checkpoints
        self._checkpoints.wait()
        by_leader(lambda: self.written(lambda: self._end(status, records, params, best_params, table, more)))

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and self._goes_on and leads():
            status = "diverged" if kind is FloatingPointError else "interrupted" if kind is KeyboardInterrupt else "failed"
            try:
                self._summarize(status, read_records(self.path), error=str(error))
            except Exception as another:  # for instance on a full disk, which the first error already names
                error.add_note(f"{self.path / SUMMARY} could not be written: {getattr(another, 'strerror', None) or another}")
        self._close(error is not None)

    def _take(self, resume: bool) -> None:
        """Make the folder and lock it against other runs; without `resume`, move an old run aside."""
        from filelock import Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)  # first: a lock file that can't be made looks like a lock that another run holds
            self._lock.acquire(timeout=0)
            if not resume:
                move_aside(self.path, status_of(self.path))
            self.path.mkdir(exist_ok=True)
        except Timeout as error:
            raise ValueError(f"out={self.path} is being written by another run: wait for it, stop it, or name another folder") from error
        except OSError as error:
            raise ValueError(f"out={self.path} cannot be made: {error.strerror}; name another folder") from error

    def _check_seen(self) -> None:
        """Refuse a folder that the processes do not share: they would wait for each other's parts of a checkpoint for ever."""
        if jax.process_count() == 1:
            return
        token = self.path / f".seen.{common(time.time_ns() % 2**31)}"
        by_leader(token.touch)
        missing = agreed(not token.exists())
        by_leader(lambda: token.unlink())
        if missing:
            raise ValueError(f"out={self.path} is not one folder that all processes see: give all the same one, on a shared disk")

    def written(self, write: Callable[[], None]) -> None:
        """Call `write`; where the disk refuses, raise an OSError that names the folder and how to go on."""
        try:
            write()
        except OSError as error:
            last = f"resume after round {self.latest}, which is saved whole" if self.latest else "start again"
            raise OSError(f"{self.path} could not be written ({error.strerror or error}): make room, then {last}") from error

    def _go_on(self, records: Records) -> None:
        """Before the first write only: write settings, `records` and a summary with the status "running"."""
        if not self._goes_on:
            by_leader(lambda: self.written(lambda: self._begin(records)))
            self._goes_on = True

    def _begin(self, records: Records) -> None:
        """Remove partial files; write the settings, `records` and the summary."""
        for cut_off in self.path.glob("*.partial"):
            cut_off.unlink()
        if self._toml:
            write(self.path / CONFIG, self._toml)
        write(self.path / METRICS, lines_of(records))
        self._summarize("running", records)

    def _end(self, status: str, records: Records, params: Tree, best: Tree | None, table: Mapping[str, Any], more: dict[str, Any]) -> None:
        """Write the models, their classes or vocabulary, the table of clients, the report and the summary."""
        save_params(self.path, params)
        save_architecture(self.path, more.pop("architecture", None))
        if best is not None:
            save_params(self.path, best, BEST)
        if words := more.get("words"):
            write(self.path / WORDS, json.dumps(words, ensure_ascii=False, indent=0))
            more = more if len(words) <= MOST_LABELS else {name: x for name, x in more.items() if name != "words"}
        save_table(self.path, table)
        self._summarize(status, records, table, **more)

    def _close(self, failed: bool = False) -> None:
        """Close the checkpoints and release the lock."""
        if self._checkpoints and not (failed and jax.process_count() > 1):  # closing waits for processes that may be gone
            self._checkpoints.close()
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _save(self, records: Records, state: State) -> None:
        """Save `state` as the checkpoint after `records`."""
        assert self._checkpoints
        self._checkpoints.save(len(records), state)
        self.latest = len(records)

    def _summarize(self, status: str, records: Records, table: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Write the summary; for a run that has ended, write the report first."""
        seconds = self._before + time.perf_counter() - self._started
        facts = {name: self._facts[name] for name in ("data", "test", "key", "parts") if name in self._facts}
        self.summary = summary = summarized(status, records, seconds, **more, **facts) | self._notes
        if status != "running":
            write(self.path / "report.html", report(self.path.absolute().name, summary, records, self._toml, table))
        write(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")


def status_of(folder: Path) -> str:
    """Return the status in a folder's summary; "unknown" where the summary is absent or damaged."""
    status = read_or_empty(folder / SUMMARY, json.loads).get("status")
    return status if isinstance(status, str) else "unknown"


def _seconds(folder: Path) -> float:
    """Return the seconds in a folder's summary; 0 where they are absent or not finite."""
    seconds = read_or_empty(folder / SUMMARY, json.loads).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else 0.0
