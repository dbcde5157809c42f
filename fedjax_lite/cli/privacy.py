"""`fedjax-lite privacy CONFIG`: what a configuration gives away."""

import argparse
from typing import Any

from fedjax_lite.cli.options import Parents, note_grid
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.privacy import budgets
from fedjax_lite.privacy.budget import budget_table

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite privacy configs/dp_fedavg.toml --set data.path=FOLDER
  fedjax-lite privacy configs/dp_fedavg.toml --set data.path=FOLDER --set privacy.target_epsilon=2
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "privacy", parents=[parents.config], help="what a configuration gives away: epsilon by rounds", epilog=EXAMPLES
    )
    parser.set_defaults(run=_privacy)
    return parser


def _privacy(options: argparse.Namespace) -> Outcome:
    tables = []
    for config in budgets(load(options.config, options.set)):
        note_grid(config)
        tables.append(build(config, budget_table)())
    return Outcome("\n".join(map(str, tables)), {"budgets": tables})
