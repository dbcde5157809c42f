"""`fedjax-lite compare RUN...`: finished runs and studies beside each other."""

import argparse
from pathlib import Path
from typing import Any

import shtab

from fedjax_lite.cli.options import Parents, completed
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.comparison import compare
from fedjax_lite.study.printed import target_of

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite compare runs/quickstart runs/slower
  fedjax-lite compare runs/* --metric test_loss --out comparison.html
  fedjax-lite compare runs/a runs/b --target test_accuracy=0.9
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        parents=[parents.json],
        help="finished runs and studies beside each other: settings that differ, a table, paired intervals, curves",
        epilog=EXAMPLES,
    )
    completed(parser.add_argument("folders", nargs="+", metavar="RUN", help="a folder of a run or a study"), shtab.DIRECTORY)
    parser.add_argument("--metric", help="what they are compared by (default: the evaluation's accuracy, or its loss)")
    parser.add_argument("--target", metavar="METRIC=VALUE", help="compare by this metric, and tell rounds and hours to its value")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="also write a page with the curves, such as comparison.html")
    parser.set_defaults(run=_compare)
    return parser


def _compare(options: argparse.Namespace) -> Outcome:
    metric, target = target_of(options.target) if options.target else (options.metric, None)
    if options.metric not in (None, metric):
        raise ValueError(f"--metric {options.metric}: --target is about {metric}: give one of them")
    found = compare(*options.folders, metric=metric, target=target)
    text, values = str(found), {"metric": found.metric, "target": found.target, "settings": found.settings}
    if options.out:
        text += f"\nwritten to {found.save(options.out)}"
    return Outcome(text, values | {"rows": found.rows, "notes": found.notes, "page": options.out})
