"""All that is worth knowing of an accelerator, in a few minutes: is it right, how fast is it, what does it take?

    python benchmarks/accelerator.py [--minutes 8] [--only PART ...] [--out FILE.jsonl] [--rehearse]

One device; no network, no data; the clone as it lies, where the packages that it stands on are installed. The most important part first:

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
import signal
import sys
import time
from pathlib import Path

from accelerator_conduct import conduct, stop
from accelerator_tables import tables

# Seconds of a part's first job, a guess: it is begun only if as many are left.
PARTS = {"correct": 10, "emnist_cnn": 30, "workloads": 25, "study": 30, "aggregators": 10, "lanes": 30}
WORKER = sys.executable, str(Path(__file__).parent / "accelerator_worker.py")
ENDING = 5  # seconds kept for the end


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
    if options.minutes <= 0:
        parser.error(f"--minutes must be more than 0, got {options.minutes:g}")
    if options.out.suffix != ".jsonl":
        parser.error(f"--out must end in .jsonl, got {options.out}: tables and errors go beside it, to .md and .log")
    return options


if __name__ == "__main__":
    sys.exit(main())
