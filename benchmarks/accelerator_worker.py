"""The process in which `accelerator.py` has its jobs done, one after another.

It writes a protocol of JSON lines: {"plan": [job, ...]} at first; {"begin": job} before each; then the job's line, with "failed" and the
error's first line where it failed, or with "skipped" and why. It ends behind a job after which the device answers no more.
"""

import argparse
import time
import traceback
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from accelerator import PARTS
from accelerator_jobs import FULL, MINIATURE, Job, jobs
from measure import peak_memory, report, use_devices
from peers import say

NO_ACCELERATOR = "jax finds no accelerator: install jax for the one there is, or try everything in miniature with --rehearse"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS))
    parser.add_argument("--until", type=float, required=True, help="when the time is over, in seconds since 1970")
    parser.add_argument("--after", default="", help="the last job that is behind us")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if options.rehearse:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_disable_most_optimizations", True)  # a rehearsal takes its time for compiling, not for running
    use_devices(1)
    if jax.default_backend() == "cpu" and not options.rehearse:
        return say({"refused": NO_ACCELERATOR})
    todo = [job for job in jobs(MINIATURE if options.rehearse else FULL) if job.part in options.only]
    names = [job.name for job in todo]
    say({"plan": names})
    work(todo[names.index(options.after) + 1 if options.after else 0 :], lambda: options.until - time.time())


def work(todo: Iterable[Job], left: Callable[[], float], tell: Callable = report) -> None:
    """Every job that would end in the seconds that are left, as the longest of its part before it did, or the first as is guessed."""
    longest: dict[str, float] = {}
    for job in todo:
        needs = longest.get(job.part, PARTS.get(job.part, 0))
        if needs > left():
            tell(job=job.name, skipped=f"takes about {needs:.0f} s, and {max(0, left()):.0f} s were left")
            continue
        say({"begin": job.name})
        began = time.perf_counter()
        try:
            line = job.run() | {"peak_memory_gb": round(peak_memory(), 2)}
        except Exception as error:
            traceback.print_exc()
            line = {"failed": first_line(error)}
        spent = time.perf_counter() - began
        longest[job.part] = max(longest.get(job.part, 0), spent)
        tell(job=job.name, **line, spent=round(spent, 1))
        if "failed" in line and not answers():
            return


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def answers() -> bool:
    """Whether the device still computes: after an illegal access to its memory, for one, it does not."""
    try:
        return float(jnp.ones(2).sum()) == 2
    except jax.errors.JaxRuntimeError:
        return False


if __name__ == "__main__":
    main()
