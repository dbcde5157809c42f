"""The command line: `fedjax-lite run CONFIG`, `data CONFIG`, `plan CONFIG`, `privacy CONFIG`, `study CONFIG` and `list`."""

import argparse
import inspect
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax

from fedjax_lite.configuration.algorithm import others_keys, own_keys
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.config import load, seed_of
from fedjax_lite.configuration.data import found_in, load_data
from fedjax_lite.configuration.privacy import budgets
from fedjax_lite.configuration.registry import KINDS, names
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import Config
from fedjax_lite.data.describe import data_page, data_text, save_parts
from fedjax_lite.engine.over_runs import RUNS_AXIS as RUNS
from fedjax_lite.engine.placement import mesh_of
from fedjax_lite.metrics import HOURS, is_evaluation
from fedjax_lite.privacy.budget import budget_table
from fedjax_lite.runner.files import DATA_PAGE, holds, resolve_folder, toml_text, write
from fedjax_lite.runner.folder import CHECKPOINTS
from fedjax_lite.runner.hosts import join_hosts, leads
from fedjax_lite.runner.model_file import named_leaves
from fedjax_lite.runner.plan import plan
from fedjax_lite.runner.progress import plain_warnings, say, terminable
from fedjax_lite.runner.run import Result
from fedjax_lite.study.printed import ranking, target_of
from fedjax_lite.study.unfinished import Unfinished

MOST_CORES = 8  # each holds a copy of the data
FEW = 50  # parameters up to which the model is printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit status: 0; 1 for a run that failed or diverged; 2 for bad input; 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs each failure several times that comes as an error anyway
    commands = {"data": _data, "list": _list, "plan": _plan, "privacy": _privacy, "run": _run, "study": _study}
    try:
        with plain_warnings():
            return commands[options.command](options)
    except ValueError as error:
        return _failed(error, 2)
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FloatingPointError, OSError, jax.errors.JaxRuntimeError) as error:
        return _failed(error, 1)
    except KeyboardInterrupt as error:
        saved = options.command == "run" and options.out and any((options.out / CHECKPOINTS).glob("round_*"))
        kept = str(error) or ("what was saved can be resumed with --resume" if saved else "nothing was saved yet")
        print(f"interrupted; {kept}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(prog="fedjax-lite", description="Federated learning research in JAX.")
    parser.add_argument("--version", action="version", version=f"fedjax-lite {version('fedjax-lite')}, jax {jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("config", help="a TOML file")
    config.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value, as often as you like")
    both = argparse.ArgumentParser(add_help=False, parents=[config])
    both.add_argument(
        "--devices",
        type=int,
        help="how many devices share the clients, or a study's runs (default: up to 8 cores of a CPU, or 1 accelerator)",
    )
    commands.add_parser("plan", parents=[both], help="what a configuration will cost: memory, steps, time of a round")
    data = commands.add_parser("data", parents=[config], help="what a configuration's data is: who has how much of what")
    data.add_argument("--save", type=Path, metavar="STORE", help="write the training part as a store, and the held-out part as STORE-test")
    data.add_argument("--out", type=Path, help=f"the page to write (default: runs/NAME/{DATA_PAGE})")
    _add_run(commands.add_parser("run", parents=[both], help="run a configuration"))
    commands.add_parser("privacy", parents=[config], help="what a configuration gives away: epsilon by rounds")
    _add_study(commands.add_parser("study", parents=[both], help="run every combination of the values in a configuration's [grid]"))
    listing = commands.add_parser("list", help="every name a configuration can use")
    listing.add_argument("kind", nargs="?", choices=list(KINDS), help="only this kind, with the keys of each name")
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    run.add_argument(
        "--out", type=Path, help="folder to write to (default: runs/NAME); a run already there is moved aside to NAME.1, .2 ..."
    )
    run.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    hosts = run.add_argument_group("several hosts", "start the same command on each, with one folder --out that all of them see")
    hosts.add_argument("--hosts", action="store_true", help="join the processes of this SLURM, GKE, Open MPI or TPU pod job")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: where process 0 listens")
    hosts.add_argument("--processes", type=int, metavar="N", help="how many processes there are")
    hosts.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    hosts.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="how long to wait for the others (default: 300)")


def _add_study(study: argparse.ArgumentParser) -> None:
    """Add the options of `study`."""
    study.add_argument("--out", type=Path, help="folder to write to (default: runs/NAME); what is already there is moved aside")
    study.add_argument(
        "--target", action="append", default=[], metavar="METRIC=VALUE", help="also tell the rounds to a value, as test_accuracy=0.85"
    )
    study.add_argument("--together", type=int, metavar="N", help="runs that are vmapped at once on a device (default: 1 on a CPU)")
    study.add_argument("--resume", action="store_true", help="go on with the study in the folder: what is finished is not run again")
    study.add_argument("--quiet", action="store_true", help="no progress bar")


def _failed(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def _alone(options: argparse.Namespace) -> Config:
    """Load a configuration for one run."""
    config = load(options.config, options.set)
    _note_grid(config)
    return config


def _note_grid(config: Config) -> None:
    """Say that the grid of a study's configuration is left out."""
    if config.values.get("grid"):
        print(f"{config.origin(('grid',)).place}: one run, of the values outside [grid]; fedjax-lite study runs all of it", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    config = _alone(options)
    out = options.out = options.out or Path("runs") / config.values["name"]
    if options.resume and holds(resolve_folder(out)) != "run":
        raise ValueError(f"--resume: there is no run in {out}; name its folder with --out, or start without --resume")
    if options.hosts or not (options.coordinator is options.processes is options.process is None):
        jax.config.update("jax_num_cpu_devices", 1)  # with more in a process, overlapping programs can wait for each other for ever
        join_hosts(options.coordinator, options.processes, options.process, timeout=options.timeout)
    for line in found_in(config):
        say(line)
    with jax.set_mesh(_mesh(options.devices)):
        start = build(config)
        result = start(out=out, resume=options.resume, progress=not options.quiet)
    if leads():
        _print(result, out)
    return 130 if result.status == "interrupted" else 0


def _data(options: argparse.Namespace) -> int:
    config = load(options.config, options.set)
    found = found_in(config)
    print("".join(f"{line}\n" for line in found), end="")
    source = load_data(config, seed_of(config.at()))
    print(data_text(source))
    if options.save:
        print(f"written to {options.save}; in a configuration:\n{save_parts(options.save, source)}")
    out = options.out or Path("runs") / config.values["name"] / DATA_PAGE
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, data_page(config.values["name"], found, source))
    print(f"written to {out}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    config = _alone(options)
    with jax.set_mesh(_mesh(options.devices)):
        print(build(config, plan)())
    return 0


def _privacy(options: argparse.Namespace) -> int:
    for config in budgets(load(options.config, options.set)):
        _note_grid(config)
        print(build(config, budget_table)())
    return 0


def _study(options: argparse.Namespace) -> int:
    config = load(options.config, options.set)
    out = options.out or Path("runs") / config.values["name"]
    targets = dict(map(target_of, options.target))
    devices = list(_mesh(options.devices).devices.flat)
    mesh = jax.make_mesh((len(devices),), (RUNS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    with terminable(), Unfinished(out, options.resume) as kept, jax.set_mesh(mesh):
        found = study_of(config)(together=options.together, wanted=targets, progress=not options.quiet, kept=kept)
        kept.save(found, targets=targets, name=config.values["name"], config=toml_text(config.values))
    print(ranking(found, targets))
    print(f"written to {out}: report.html, table.csv, study.json")
    return 0


def _mesh(devices: int | None) -> jax.sharding.Mesh:
    """Make the mesh of devices that share the clients; each core of a CPU is a device."""
    if devices is not None and devices < 1:
        raise ValueError(f"--devices must be at least 1, got {devices}")
    if jax.distributed.is_initialized():
        if devices is not None and devices != jax.device_count():
            raise ValueError(f"--devices {devices}: several hosts use all of their devices, here {jax.device_count()}; leave it out")
        return mesh_of(jax.devices())
    cores = os.cpu_count() or 1
    few = min(cores, MOST_CORES)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # whoever asks for more than there are, gets them
        try:
            jax.config.update("jax_num_cpu_devices", min(devices or few, cores))
        except RuntimeError:
            pass  # jax runs already, as in a notebook, with the devices it has
    found = jax.devices()
    devices = devices or (min(len(found), few) if jax.default_backend() == "cpu" else 1)
    if devices > len(found):
        raise ValueError(f"--devices {devices}: there are only {len(found)} ({found[0].device_kind})")
    return mesh_of(found[:devices])


def _print(result: Result, out: Path) -> None:
    hours = result.history[-1].get(HOURS) if result.history else None
    print(f"{result.status} after {len(result.history)} rounds" + (f", {hours:.3g} virtual hours" if hours else ""))
    evaluated = [{name: x for name, x in record.items() if is_evaluation(name)} for record in result.history]
    for name, value in (next(filter(None, reversed(evaluated)), {}) | result.further).items():
        if isinstance(value, float):
            print(f"  {name} {value:.6g}")
    for baseline, values in result.baselines.items():
        print(f"  {baseline.replace('_', ' ')}: " + ", ".join(f"{name} {x:.6g}" for name, x in values.items() if isinstance(x, float)))
    leaves = named_leaves(result.params)
    if sum(leaf.size for leaf in leaves.values()) <= FEW:
        print("  global parameters")
        for name, leaf in leaves.items():
            for row in leaf.reshape(-1, leaf.shape[-1] if leaf.ndim else 1):
                print(f"    {name:<16}" + " ".join(f"{x: .6f}" for x in row.tolist()))
    files = ["report.html", "metrics.jsonl", "summary.json", "params.safetensors", *(["clients.csv"] if result.clients else [])]
    print(f"written to {out}: {', '.join(files)}")
    if result.status == "interrupted":
        print("go on with the same command and --resume" if result.history else "no round is finished: start again")


def _list(options: argparse.Namespace) -> int:
    """Print every name by kind; of one kind also each name's keys."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    for kind in [options.kind] if options.kind else KINDS:
        factories = names(kind)
        print(f"{kind}  ({KINDS[kind].where})")
        width = max(map(len, factories), default=0)
        for name, factory in factories.items():
            summary = (inspect.getdoc(factory) or "").split("\n")[0].replace("``", "`")
            line = f"  {name:<{width}}  {summary}".rstrip()
            print(line if len(line) <= columns else line[: columns - 3] + "...")
            if options.kind:
                print(f"  {'':<{width}}  {_keys(factory, kind)}")
        print()
    return 0


def _keys(factory, kind: str) -> str:
    """Write a factory's keys with their defaults; of an algorithm only keys that no other section gives."""
    parameters = own_keys(factory) if kind == "algorithm" else inspect.signature(factory).parameters.values()
    keys = ", ".join(_key(p) for p in parameters) or "none"
    return f"keys: {keys}; from other sections: {', '.join(others_keys(factory))}" if kind == "algorithm" else f"keys: {keys}"


def _key(parameter: inspect.Parameter) -> str:
    """Write a key with its default; other keys, which the function hands on, by their argument's name."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"and {parameter.name.replace('_', ' ')}"
    return parameter.name if parameter.default is parameter.empty else f"{parameter.name} = {parameter.default}"
