"""The command line: `fedjax-lite run CONFIG` and `fedjax-lite list`."""

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from fedjax_lite import config
from fedjax_lite.folder import holds_run, named_leaves, status_of
from fedjax_lite.run import Result

FEW = 50  # parameters up to which the model is printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for a run that failed, 2 for bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="fedjax-lite", description="Federated learning research in JAX.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a configuration")
    run.add_argument("config", help="a TOML file")
    run.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value, as often as you like")
    run.add_argument("--out", type=Path, help="folder to write to (default: runs/NAME; a run already there is moved aside)")
    run.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    listing = commands.add_parser("list", help="every name a configuration can use")
    listing.add_argument("kind", nargs="?", choices=list(config.NAMESPACES), help="only this kind")
    options = parser.parse_args(arguments)
    try:
        return _list(options) if options.command == "list" else _run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    loaded = config.load(options.config, options.set)
    start = config.prepare(loaded)
    out = options.out or Path("runs") / loaded.values["name"]
    if options.resume and not holds_run(out):
        raise ValueError(f"--resume: there is no run in {out}; name its folder with --out, or start without --resume")
    if not options.resume:
        _make_room(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.toml").write_text(tomli_w.dumps(loaded.values))
    result = start(out=out, resume=options.resume, progress=not options.quiet)
    _print(result, out)
    return 130 if result.status == "interrupted" else 0


def _make_room(out: Path) -> None:
    """Move a run that is already there aside: nothing is lost, and the newest is where it is looked for."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder")
    if not holds_run(out):
        if out.exists() and any(out.iterdir()):
            raise ValueError(f"--out {out} is not empty and holds no run: name another folder")
        return
    number = 1
    while (aside := out.with_name(f"{out.name}.{number}")).exists():
        number += 1
    print(f"{out} held a run (status {status_of(out)}): moved to {aside}", file=sys.stderr)
    out.rename(aside)


def _print(result: Result, out: Path) -> None:
    last = next((record for record in reversed(result.history) if any(name.startswith(("test_", "train_")) for name in record)), {})
    print(f"{result.status} after {len(result.history)} rounds")
    for name, value in last.items():
        if name.startswith(("test_", "train_")) and isinstance(value, float):
            print(f"  {name} {value:.6g}")
    leaves = named_leaves(result.params)
    if sum(leaf.size for leaf in leaves.values()) <= FEW:
        print("  global parameters")
        for name, leaf in leaves.items():
            rows = leaf.reshape(-1, leaf.shape[-1]) if leaf.ndim else leaf.reshape(1, 1)
            for row in rows:
                print(f"    {name:<16}" + " ".join(f"{x: .6f}" for x in row))
    print(f"written to {out}: report.html, metrics.jsonl, summary.json, params.safetensors")
    if result.status == "interrupted":
        print("go on with the same command and --resume")


def _list(options: argparse.Namespace) -> int:
    for kind in [options.kind] if options.kind else config.NAMESPACES:
        print(f"{kind}")
        for namespace in config.NAMESPACES[kind]:
            for name in config.public_names(kind, namespace):
                function = getattr(namespace, name)
                summary = (inspect.getdoc(function) or "").split("\n")[0]
                print(f"  {name:<28} {summary}")
        print()
    return 0
