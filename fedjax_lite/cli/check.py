"""`fedjax-lite check RUN`: whether the numbers lie in the bands of the configuration's [expected]."""

import argparse
from typing import Any

import shtab

from fedjax_lite.cli.options import Parents, completed
from fedjax_lite.cli.outcome import FAILED, Outcome
from fedjax_lite.comparison import check

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite check runs/quickstart
  fedjax-lite run configs/quickstart.toml && fedjax-lite check runs/quickstart
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "check",
        parents=[parents.json],
        help="whether a run's numbers lie in the bands of its configuration's [expected]: exit status 0 or 1",
        epilog=EXAMPLES,
    )
    completed(parser.add_argument("folder", metavar="RUN", help="a folder of a run or a study"), shtab.DIRECTORY)
    parser.set_defaults(run=_check)
    return parser


def _check(options: argparse.Namespace) -> Outcome:
    found = check(options.folder)
    return Outcome(str(found), {"ok": found.ok, "rows": found.rows}, 0 if found.ok else FAILED)
