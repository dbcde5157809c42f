"""`fedjax-lite plot RUN...`: a figure for a paper."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shtab

from fedjax_lite import plots
from fedjax_lite.cli.options import Parents, completed
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.comparison.entries import study_in
from fedjax_lite.comparison.lines import AGAINST

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite plot runs/quickstart runs/slower --out accuracy.pdf
  fedjax-lite plot runs/slow_phones --against hours --out hours.pdf
  fedjax-lite plot runs/robustness --kind heat --metric test_accuracy --out heat.pdf
  fedjax-lite plot runs/quickstart --kind clients --width 6.75 --out clients.png
"""
KINDS = ("curves", "heat", "clients", "participation", "epsilon")


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "plot", parents=[parents.json], help="a figure for a paper: curves, heat map, clients, participation, epsilon", epilog=EXAMPLES
    )
    completed(parser.add_argument("folders", nargs="+", metavar="RUN", help="a folder of a run or a study"), shtab.DIRECTORY)
    parser.add_argument("--kind", choices=KINDS, default="curves", help="what to draw (default: curves)")
    parser.add_argument("--metric", help="which metric (default: the evaluation's accuracy, or its loss)")
    parser.add_argument("--against", choices=list(AGAINST), default="rounds", help="what curves are over (default: rounds)")
    parser.add_argument("--label", action="append", default=[], metavar="TEXT", help="of a curve, one each in their order")
    parser.add_argument("--width", type=float, metavar="INCHES", help="the figure's width (default: a column, 3.25)")
    out = parser.add_argument("--out", type=Path, required=True, metavar="FIGURE", help="the file: .pdf, .png or .svg")
    completed(out)
    parser.set_defaults(run=_plot)
    return parser


def _plot(options: argparse.Namespace) -> Outcome:
    width = {} if options.width is None else {"width": options.width}
    if options.kind == "curves":
        figure = plots.curves(*options.folders, metric=options.metric, against=options.against, labels=options.label, **width)
    else:
        one: dict[str, Callable[[str], Any]] = {
            "heat": lambda folder: plots.heat_map(study_in(Path(folder).expanduser()), options.metric, **width),
            "clients": lambda folder: plots.clients(folder, options.metric, **width),
            "participation": lambda folder: plots.participation(folder, **width),
            "epsilon": lambda folder: plots.epsilon(folder, **width),
        }
        if len(options.folders) > 1:
            raise ValueError(f"--kind {options.kind} is of one folder, got {len(options.folders)}")
        figure = one[options.kind](options.folders[0])
    path = plots.save(figure, options.out)
    return Outcome(f"written to {path}", {"figure": path})
