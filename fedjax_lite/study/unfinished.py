"""Keep the finished programs of a running study on disk, so that a killed study can go on."""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.engine.programs import Program
from fedjax_lite.runner.files import check_room, holds, move_aside, replacing, write
from fedjax_lite.runner.identity import first_difference
from fedjax_lite.study.results import Study

UNFINISHED, IDENTITY = "unfinished", "identity.json"  # a folder in the study's folder, removed once the study is whole, and a file in it


class Unfinished:
    """The finished programs of a study, a file each in `out`/unfinished until the study is whole.

    Args:
        out: the study's folder.
        resume: go on with the study in `out`; otherwise `begin` moves an old study aside.

    Raises:
        ValueError: if `out` holds other files, cannot be written, or holds no study to resume.
    """

    def __init__(self, out: Path, resume: bool = False) -> None:
        self.given, self._resume = out, resume
        self._started, self._before = time.perf_counter(), 0.0
        self._done = self._programs = 0
        self._lock: Any = None
        self.out = check_room(out, resume)
        if resume and holds(self.out) != "study":
            raise ValueError(f"--resume: there is no study in {out}; name its folder with --out, or start without --resume")

    def begin(self, identity: Mapping[str, Any], programs: int) -> Study | None:
        """Make the folder, or check the folder to resume; return its study if that is finished.

        Args:
            identity: nested dicts of JSON values; a study is resumed only if its identity is equal.
            programs: the number of programs.

        Raises:
            ValueError: for a study of another identity, naming the first difference; for a study that another process writes.
        """
        from filelock import FileLock, Timeout

        self._programs, identity = programs, json.loads(json.dumps(identity))
        self._lock = FileLock(self.out.with_name(f".{self.out.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"out={self.given} is being written by another study: wait for it, stop it, or name another folder") from None
        if not self._resume:
            move_aside(self.out)
            (self.out / UNFINISHED).mkdir(parents=True)
            write(self.out / UNFINISHED / IDENTITY, json.dumps(identity) + "\n")
            return None
        finished = None if (self.out / UNFINISHED).exists() else Study.load(self.out)
        saved = finished.made if finished else self._identity()
        if difference := first_difference({name: saved.get(name) for name in identity}, identity):
            raise ValueError(
                f"--resume: the study in {self.given} is another: {difference}; "
                "resume with what it was made with, or start in another folder"
            )
        return finished

    def read(self, programs: Sequence[Program]) -> dict[int, dict[str, np.ndarray]]:
        """Read the results of finished programs, by index in `programs`; skip a damaged file."""
        done = {}
        for place, program in enumerate(programs):
            path = self.out / UNFINISHED / f"{place}.npz"
            with suppress(Exception), open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                results = {name: file[f"result {name}"].view(x.dtype) for name, x in program.shapes.items()}
                before = float(file["seconds"])
                if all(results[name].shape == (len(program.runs), *x.shape) for name, x in program.shapes.items()):
                    done[place], self._before = results, max(self._before, before)
        self._done = len(done)
        return done

    def add(self, place: int, results: Mapping[str, np.ndarray]) -> None:
        """Write a finished program's results, whole or not at all.

        Raises:
            OSError: if the file cannot be written; says how many programs are kept.
        """
        try:
            with replacing(self.out / UNFINISHED / f"{place}.npz") as temporary, open(temporary, "xb") as file:
                # NumPy can't save a dtype of another package, like bfloat16: its numbers are saved as bytes.
                raw: dict[str, Any] = {
                    f"result {name}": x if x.dtype.isbuiltin == 1 else x.view(f"V{x.itemsize}") for name, x in results.items()
                }
                np.savez(file, **raw, seconds=self.seconds())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{self.given} could not be written ({error.strerror}): make room; {self.kept()}") from error
        self._done += 1

    def seconds(self) -> float:
        """Return the seconds that the study has run, before and after it was resumed."""
        return round(self._before + time.perf_counter() - self._started, 3)

    def kept(self) -> str:
        """Return a sentence that says how many programs are on disk and how to go on."""
        return f"{self._done} of {self._programs} programs are kept in {self.given}: go on with the same command and --resume"

    def save(self, study: Study, **options: Any) -> None:
        """Write a study as `Study.save` does, then remove the files of single programs, unless programs are left to run.

        Raises:
            OSError: if the study cannot be written; says how many programs are kept.
        """
        try:
            study.save(self.out, **options)
        except OSError as error:
            raise OSError(f"{self.given} could not be written ({error.strerror}): make room; {self.kept()}") from error
        if "unfinished" not in study.made and (self.out / UNFINISHED).exists():
            shutil.rmtree(self.out / UNFINISHED)

    def __enter__(self) -> "Unfinished":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, KeyboardInterrupt) and self._lock:
            error.args = (self.kept(),)
        if self._lock and self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _identity(self) -> dict[str, Any]:
        """Read the identity that `begin` wrote for the unfinished study."""
        path = self.out / UNFINISHED / IDENTITY
        try:
            identity = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"--resume: {path} cannot be read ({error}): start without --resume") from None
        return identity if isinstance(identity, dict) else {}
