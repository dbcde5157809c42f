"""Jobs done by a worker process, whatever becomes of it: it dies, it hangs, the time is over, somebody stops it."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent  # whose package is measured, installed or not
OVER = "the time was over while it ran"


class Stopped(Exception):
    """By a signal."""


def stop(number, frame):
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # once is enough
    raise Stopped(signal.Signals(number).name)


def conduct(command: list[str], left: Callable[[], float], take: Callable[[dict], None], log, longest: float) -> str:
    """Hand every job's line to `take`: a worker does one after another; where it ends before the last, another goes on behind.

    Args:
        command: of a worker; it is told the job that is behind.
        left: the seconds that are left.
        log: the file for what a worker says beside its lines.
        longest: seconds after which a job is taken to hang.

    Returns:
        By what it was stopped, or "".
    """
    plan, settled, behind, stopped = [], set(), "", ""

    def settle(line):
        settled.add(line["job"])
        take(line)

    while True:
        running, before, said_before = "", behind, os.stat(log.name).st_size
        try:
            with working([*command, "--after", behind], log) as (process, heard):
                while line := heard(min(left(), longest)):
                    if "refused" in line:
                        raise SystemExit(f"accelerator.py: {line['refused']}")
                    if "plan" in line:
                        plan = plan or line["plan"]
                    elif "begin" in line:
                        behind = running = line["begin"]
                    else:
                        behind, running = line["job"], ""
                        settle(line)
                ended = f"its process ended with status {process.wait()}: {last_words(log.name, said_before)}"
        except queue.Empty:
            ended = OVER if left() <= 0 else f"not done after {longest:.0f} s"
        except Stopped as signalled:
            ended = stopped = f"by {signalled}"
        if running:
            settle({"job": running, "skipped" if stopped or ended == OVER else "failed": ended})
        rest = [job for job in plan if job not in settled]
        if rest and not stopped and left() > 0 and behind != before:
            continue
        for job in rest:
            settle({"job": job, "skipped": stopped or ("no time was left" if left() <= 0 else ended)})
        if not plan and not stopped:
            raise SystemExit(f"accelerator.py: nothing could be begun: {ended}")
        return stopped


@contextmanager
def working(command: list[str], log) -> Iterator[tuple[subprocess.Popen, Callable[[float], dict | None]]]:
    """A worker, and its lines: a function of seconds that returns the next one, None after the last, or raises `queue.Empty`."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)},
        process_group=0,  # a terminal's interrupt is for this process alone, which then ends the worker
    )  # fmt: skip
    lines: queue.Queue = queue.Queue()

    def read():
        with process.stdout:
            for text in process.stdout:
                if text.startswith("{"):  # else a library prints something
                    with suppress(ValueError):  # where the process ended in the middle
                        lines.put(json.loads(text))
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, lambda seconds: lines.get(timeout=max(0, seconds))
    finally:
        process.kill()  # whatever it is at, it has told what it has
        process.wait()
        reader.join(1)


def last_words(log: str, said_before: int) -> str:
    """The last line that a worker said."""
    with open(log, "rb") as file:
        file.seek(said_before)
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
