"""All that is worth knowing of an accelerator, in a few minutes: is it right, how fast is it, what does it take?

    python benchmarks/accelerator.py [--minutes 8] [--only PART ...] [--out FILE.jsonl] [--rehearse]

One device; no network, no data. The parts, the most important first:

    correct      six kinds of algorithm and all aggregators, beside the CPU's numbers
    emnist_cnn   rounds of 10, 100 and 1000 clients, in float32 and bfloat16
    workloads    rounds of mlp, softmax and char_lstm, in both
    study        256 runs in one program, beside single runs
    aggregators  of 100 messages of a million numbers
    lanes        other numbers of them than the default

One JSON line a job, to the standard output and FILE.jsonl; Markdown tables for README.md at the end and, written anew with every line, in
FILE.md: whatever stops it, what is there stays. A job that fails is told, and the next goes on, in a fresh process where it took its own or
the device along. One that would not fit into the time that is left, by the longest of its part, is left out, and told.

Seconds are medians after a warm-up. `memory_gb` is XLA's account of a program alone; `peak_memory_gb` is the most that the process has used
so far. Float32 is multiplied as jax does by default, which the line "machine" tells, but for `correct`, where it is to the last bit.
--rehearse does everything in miniature on a CPU: its numbers mean nothing.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerator_tables import tables

# Seconds of a part's first job, a guess: it is begun only if as many are left.
PARTS = {"correct": 10, "emnist_cnn": 30, "workloads": 25, "study": 30, "aggregators": 10, "lanes": 30}
WORKER = sys.executable, str(Path(__file__).parent / "accelerator_worker.py")
ENDING = 5  # seconds kept for the end
OVER = "the time was over while it ran"


class Stopped(Exception):
    """By a signal."""


def main(arguments=None, worker=WORKER) -> int:
    options = parsed(arguments)
    until = time.time() + 60 * options.minutes - ENDING
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    command = [*worker, "--only", "machine", *options.only, *["--rehearse"] * options.rehearse, "--until", str(until)]
    lines: list[dict] = []
    with open(options.out, "w") as file, open(options.out.with_suffix(".log"), "w") as log:

        def take(line):
            lines.append(line)
            for output in (file, sys.stdout):
                print(json.dumps(line), file=output, flush=True)
            options.out.with_suffix(".md").write_text(tables(lines))

        stopped = conduct(command, lambda: until - time.time(), take, log, longest=30 * options.minutes)
    print("", tables(lines), sep="\n", flush=True)
    wrong = [line["job"] for line in lines if "failed" in line or not line.get("agrees", True)]
    if wrong:
        print(f"failed, or not the CPU's numbers: {', '.join(wrong)}; {log.name} has the errors", file=sys.stderr)
    if stopped:
        print(f"stopped {stopped}", file=sys.stderr)
    return 1 if wrong or stopped else 0


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="at most (default: 8)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator.jsonl"), metavar="FILE.jsonl")
    parser.add_argument("--rehearse", action="store_true", help="everything in miniature on a CPU")
    options = parser.parse_args(arguments)
    if options.out.suffix != ".jsonl":
        parser.error(f"--out must end in .jsonl, got {options.out}: tables and errors go beside it, to .md and .log")
    return options


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
    # In a group of its own: a terminal's interrupt is for this process alone, which then ends the worker.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, process_group=0)
    lines: queue.Queue = queue.Queue()

    def read():
        with process.stdout:
            for text in process.stdout:
                with suppress(ValueError):  # where a library prints something, or the process ended in the middle
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


if __name__ == "__main__":
    sys.exit(main())
