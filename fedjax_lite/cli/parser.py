"""The parser of all commands, with their help."""

import argparse
import sys
from importlib.metadata import version
from typing import NoReturn

import jax

from fedjax_lite.cli import arena, check, compare, completion, data, export, listing, plan, plot, privacy, run, study
from fedjax_lite.cli.options import parents_of

__all__ = ["Misuse", "parser_of"]

COMMANDS = (run, study, arena, compare, check, plot, export, plan, data, privacy, listing, completion)  # in the order of the help
EXAMPLES = """\
examples:
  fedjax-lite run configs/quickstart.toml                    a run, into runs/quickstart
  fedjax-lite run configs/quickstart.toml --set seed=1       the same with another seed
  fedjax-lite COMMAND --help                                 what a command takes, with examples

exit status: 0; 1 failed or diverged, or a check did not hold; 2 bad input; 3 out of its --budget; 130 interrupted
"""


class Misuse(SystemExit):
    """Arguments that no command takes: the exit status 2, and what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class _Parser(argparse.ArgumentParser):
    """A parser whose errors can be told in another form too."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise Misuse(message)


def parser_of() -> argparse.ArgumentParser:
    """Make the parser of all commands. Each sets `run`, options -> Outcome, and `kept`, options -> what an interruption leaves."""
    parser = _Parser(
        prog="fedjax-lite",
        description="Federated learning research in JAX.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fedjax-lite {version('fedjax-lite')}, jax {jax.__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parents = parents_of()
    for command in COMMANDS:
        added = command.add(commands, parents)
        added.formatter_class = argparse.RawDescriptionHelpFormatter
        if added.get_default("kept") is None:
            added.set_defaults(kept=lambda options: "nothing was saved yet")
    return parser
