"""`fedjax-lite arena NAME`: is an aggregator, an attack or an uplink any good?"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import shtab

from fedjax_lite.arena import arena
from fedjax_lite.arena.contender import MINUTES
from fedjax_lite.arena.field import CLASSES, ROUNDS, SEEDS
from fedjax_lite.arena.result import PAGE, VALUES
from fedjax_lite.cli.options import Parents, completed, mesh
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.configuration.override import override
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.table import Config, Origin, Override
from fedjax_lite.engine.over_runs import RUNS_AXIS as RUNS
from fedjax_lite.runner.progress import terminable

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite arena                                        the built-in aggregators, which are not run again
  fedjax-lite arena mine.py:my_rule --set groups=5
  fedjax-lite arena nnm --set inner.name=median
  fedjax-lite arena --attack mine.py:my_attack
  fedjax-lite arena --uplink qsgd --set levels=8
  fedjax-lite arena mine.py:my_rule --rounds 10 --seeds 2  a quick look, alone
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    what = "rank an aggregator, an attack or an uplink of your own among all built-in ones"
    parser = commands.add_parser("arena", parents=[parents.json], help=what, epilog=EXAMPLES)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("aggregator", nargs="?", help="a name, or FILE.py:FUNCTION; without any contender the built-in aggregators alone")
    which.add_argument("--attack", metavar="NAME", help="an attack instead, against every built-in aggregator")
    which.add_argument("--uplink", metavar="NAME", help="an uplink instead: the score against bits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an argument of the contender")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"of every cell (default: {SEEDS}, which is the most without --all)")
    alone = f"of a run (default: {ROUNDS}; with others the contender stands alone, but for --all)"
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=alone)
    parser.add_argument("--all", action="store_true", help="run what is built in again too: some 20 to 50 minutes on two cores")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"leave out what would take longer (default: {MINUTES:g})")
    parser.add_argument("--devices", type=int, metavar="N", help="how many devices share the runs (default: up to 8 cores of a CPU)")
    completed(parser.add_argument("--out", type=Path, help="folder to write to (default: runs/arena_NAME)"), shtab.DIRECTORY)
    parser.add_argument("--quiet", action="store_true", help="say nothing while it runs")
    parser.set_defaults(run=_arena)
    return parser


def _arena(options: argparse.Namespace) -> Outcome:
    contender, name = _contender(options)
    devices = list(mesh(options.devices).devices.flat)
    runs = jax.make_mesh((len(devices),), (RUNS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    with terminable(), jax.set_mesh(runs):
        found = arena(
            contender,
            name=name,
            seeds=options.seeds,
            rounds=options.rounds,
            again=options.all,
            minutes=options.minutes,
            progress=not options.quiet,
        )
    short = "" if name is None else "_" + name.partition("(")[0]
    out = found.save(options.out or Path("runs") / f"arena{short}")
    text = f"{found}\nwritten to {out}: {PAGE}, {VALUES}"
    return Outcome(text, {"kind": found.kind, "contender": found.name, "table": found.table, "folder": out, "files": [PAGE, VALUES]})


def _contender(options: argparse.Namespace) -> tuple[Any, str | None]:
    """Build the contender that the options name, of an aggregator a function of num_byzantine; also return its name with its keys."""
    kind = "attack" if options.attack else "uplink" if options.uplink else "aggregator"
    written = getattr(options, kind)
    if written is None:
        if options.set:
            raise ValueError(f"--set {options.set[0]}: there is no contender: name one")
        return None, None
    config = _config(kind, written, options.set)
    named = written.rpartition(":")[2] + (f"({', '.join(options.set)})" if options.set else "")

    def part(**defaults: Any) -> Any:
        return make(config.at(kind), kind, **defaults)

    if kind != "aggregator":
        return part(**({"classes": CLASSES} if kind == "attack" else {})), named
    part(num_byzantine=0)  # for errors of names and keys, before anything is run
    factory: Callable[[Any], Any] = lambda num_byzantine: part(num_byzantine=num_byzantine)  # noqa: E731
    return factory, named


def _config(kind: str, name: str, changes: list[str]) -> Config:
    """Return a configuration of one part alone: its name, and its keys as the command line sets them."""
    values: dict[str, Any] = {kind: {"name": name}}
    here = Path()  # relative paths start at the current directory
    set_keys = [Override(override(values, f"{kind}.{change}"), Origin(f"--set {change}", here)) for change in changes]
    return Config(values, source="fedjax-lite arena", overrides=tuple(set_keys))
