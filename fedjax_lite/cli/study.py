"""`fedjax-lite study CONFIG`: run every combination of the values in a configuration's [grid]."""

import argparse
from pathlib import Path
from typing import Any

import jax
import shtab

from fedjax_lite.cli.options import Parents, completed, mesh
from fedjax_lite.cli.outcome import OUT_OF_TIME, Outcome
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.study import study_of
from fedjax_lite.engine.over_runs import RUNS_AXIS as RUNS
from fedjax_lite.runner.files import toml_text
from fedjax_lite.runner.progress import terminable
from fedjax_lite.study.printed import ranking, target_of
from fedjax_lite.study.unfinished import Unfinished

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite study configs/robustness.toml --set data.path=FOLDER
  fedjax-lite study configs/mcmahan_mnist.toml --set data.path=FOLDER --target test_accuracy=0.85
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "study", parents=[parents.devices], help="run every combination of the values in a configuration's [grid]", epilog=EXAMPLES
    )
    out = parser.add_argument("--out", type=Path, help="folder to write to (default: runs/NAME); what is already there is moved aside")
    completed(out, shtab.DIRECTORY)
    parser.add_argument(
        "--target", action="append", default=[], metavar="METRIC=VALUE", help="also tell the rounds to a value, as test_accuracy=0.85"
    )
    parser.add_argument("--together", type=int, metavar="N", help="runs that are vmapped at once on a device (default: 1 on a CPU)")
    parser.add_argument("--resume", action="store_true", help="go on with the study in the folder: what is finished is not run again")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="end in time, with the cells there are then; --resume goes on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_study)
    return parser


def _study(options: argparse.Namespace) -> Outcome:
    config = load(options.config, options.set)
    out = options.out or Path("runs") / config.values["name"]
    targets = dict(map(target_of, options.target))
    devices = list(mesh(options.devices).devices.flat)
    runs = jax.make_mesh((len(devices),), (RUNS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    with terminable(), Unfinished(out, options.resume) as kept, jax.set_mesh(runs):
        run = study_of(config)
        found = run(together=options.together, wanted=targets, budget=options.budget, progress=not options.quiet, kept=kept)
        kept.save(found, targets=targets, name=config.values["name"], config=toml_text(config.values))
    files = ["report.html", "table.csv", "study.json"]
    text = f"{ranking(found, targets)}\nwritten to {out}: {', '.join(files)}"
    unfinished = found.made.get("unfinished")
    text += f"\nout of time: {unfinished}; go on with the same command and --resume" if unfinished else ""
    tables = {metric: found.table(metric, targets.get(metric)) for metric in found.results}
    values = {"seeds": found.seeds, "programs": found.programs, "unfinished": unfinished, "tables": tables, "folder": out, "files": files}
    return Outcome(text, values, OUT_OF_TIME if unfinished else 0)
