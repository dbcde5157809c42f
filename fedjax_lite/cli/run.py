"""`fedjax-lite run CONFIG`: run a configuration."""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
import shtab

from fedjax_lite.base import Algorithm, Tree
from fedjax_lite.cli.options import Parents, completed, load_one, mesh
from fedjax_lite.cli.outcome import INTERRUPTED, OUT_OF_TIME, Outcome
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.data import found_in
from fedjax_lite.metrics import HOURS, is_evaluation
from fedjax_lite.runner.files import check_room, holds, resolve_folder
from fedjax_lite.runner.folder import CHECKPOINTS
from fedjax_lite.runner.hosts import join_hosts, leads
from fedjax_lite.runner.model_file import named_leaves
from fedjax_lite.runner.progress import say
from fedjax_lite.runner.result import Result

__all__ = ["add"]

FEW = 50  # parameters up to which the model is printed
STATUSES = {"interrupted": INTERRUPTED, "out_of_time": OUT_OF_TIME}
EXAMPLES = """\
examples:
  fedjax-lite run configs/quickstart.toml
  fedjax-lite run configs/quickstart.toml --resume --set run.rounds=150
  fedjax-lite run configs/quickstart.toml --set client.optimizer.learning_rate=0.05 --set seed=1 --out runs/slower
  fedjax-lite run configs/quickstart.toml --budget 60 --json
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser("run", parents=[parents.devices], help="run a configuration", epilog=EXAMPLES)
    out = parser.add_argument(
        "--out", type=Path, help="folder to write to (default: runs/NAME); a run already there is moved aside to NAME.1, .2 ..."
    )
    completed(out, shtab.DIRECTORY)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    parser.add_argument("--dry", action="store_true", help="build and trace everything, then stop: nothing is run or written")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="end in time, with what there is then; --resume goes on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    hosts = parser.add_argument_group("several hosts", "start the same command on each, with one folder --out that all of them see")
    hosts.add_argument("--hosts", action="store_true", help="join the processes of this SLURM, GKE, Open MPI or TPU pod job")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: where process 0 listens")
    hosts.add_argument("--processes", type=int, metavar="N", help="how many processes there are")
    hosts.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    hosts.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="how long to wait for the others (default: 300)")
    parser.set_defaults(run=_run, kept=_kept)
    return parser


def _run(options: argparse.Namespace) -> Outcome:
    config = load_one(options)
    out = options.out = options.out or Path("runs") / config.values["name"]
    if options.resume and holds(resolve_folder(out)) != "run":
        raise ValueError(f"--resume: there is no run in {out}; name its folder with --out, or start without --resume")
    if options.hosts or not (options.coordinator is options.processes is options.process is None):
        jax.config.update("jax_num_cpu_devices", 1)  # with more in a process, overlapping programs can wait for each other for ever
        join_hosts(options.coordinator, options.processes, options.process, timeout=options.timeout)
    for line in found_in(config):
        say(line)
    with jax.set_mesh(mesh(options.devices)):
        if options.dry:
            check_room(out, options.resume)
            return build(config, _dry)()
        start = build(config)
        result = start(out=out, resume=options.resume, budget=options.budget, progress=not options.quiet)
    return Outcome(_text(result, out) if leads() else "", _values(result, out), STATUSES.get(result.status, 0))


def _dry(algorithm: Algorithm, data: Any, params: Tree, sampler: Any, *, rounds: int, **others: Any) -> Outcome:
    """Tell what `build` has put together and traced, instead of running it."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    facts = {"parameters": parameters, "clients": data.population, "examples": int(np.sum(data.size)), "rounds": rounds}
    told = ", ".join(f"{number:,} {name}" for name, number in facts.items())
    return Outcome(f"it fits together: {told}; nothing was run or written", facts)


def _kept(options: argparse.Namespace) -> str:
    """Say what a run that is stopped at once leaves."""
    saved = options.out and any((options.out / CHECKPOINTS).glob("round_*"))
    return "what was saved can be resumed with --resume" if saved else "nothing was saved yet"


def _values(result: Result, out: Path) -> dict[str, Any]:
    """Return what a run ended with, for programs."""
    return {
        "status": result.status,
        "rounds": len(result.history),
        "final": _evaluation(result),
        "best": result.best.facts() if result.best else None,
        "baselines": result.baselines,
        "folder": out,
        "files": _files(result),
    }


def _text(result: Result, out: Path) -> str:
    """Say what a run ended with."""
    hours = result.history[-1].get(HOURS) if result.history else None
    lines = [f"{result.status.replace('_', ' ')} after {len(result.history)} rounds" + (f", {hours:.3g} virtual hours" if hours else "")]
    lines += [f"  {name} {value:.6g}" for name, value in _evaluation(result).items() if isinstance(value, float)]
    if result.best:
        lines.append(f"  best {result.best.metric} {result.best.value:.6g}, after round {result.best.round}")
    for baseline, values in result.baselines.items():
        numbers = ", ".join(f"{name} {x:.6g}" for name, x in values.items() if isinstance(x, float))
        lines.append(f"  {baseline.replace('_', ' ')}: {numbers}")
    leaves = named_leaves(result.params)
    if sum(leaf.size for leaf in leaves.values()) <= FEW:
        lines.append("  global parameters")
        for name, leaf in leaves.items():
            for row in leaf.reshape(-1, leaf.shape[-1] if leaf.ndim else 1):
                lines.append(f"    {name:<16}" + " ".join(f"{x: .6f}" for x in row.tolist()))
    lines.append(f"written to {out}: {', '.join(_files(result))}")
    if result.status in STATUSES:
        lines.append("go on with the same command and --resume" if result.history else "no round is finished: start again")
    return "\n".join(lines)


def _evaluation(result: Result) -> dict[str, Any]:
    """Return the last evaluation of a run, and what was evaluated at its end alone."""
    evaluated = [{name: x for name, x in record.items() if is_evaluation(name)} for record in result.history]
    return next(filter(None, reversed(evaluated)), {}) | result.further


def _files(result: Result) -> list[str]:
    """Name the files for people in a run's folder."""
    there = ["report.html", "metrics.jsonl", "summary.json", "params.safetensors"]
    return there + (["best.safetensors"] if result.best else []) + (["clients.csv"] if result.clients else [])
