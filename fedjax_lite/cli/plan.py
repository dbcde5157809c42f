"""`fedjax-lite plan CONFIG`: what a configuration will cost."""

import argparse
from typing import Any

import jax

from fedjax_lite.cli.options import Parents, load_one, mesh
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.configuration.build import build
from fedjax_lite.runner.plan import plan

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite plan configs/quickstart.toml
  fedjax-lite plan configs/quickstart.toml --set data.partition.clients=10000
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "plan", parents=[parents.devices], help="what a configuration will cost: memory, steps, time of a round", epilog=EXAMPLES
    )
    parser.set_defaults(run=_plan)
    return parser


def _plan(options: argparse.Namespace) -> Outcome:
    config = load_one(options)
    with jax.set_mesh(mesh(options.devices)):
        found = build(config, plan)()
    return Outcome(str(found), found._asdict())
