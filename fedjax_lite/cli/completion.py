"""`fedjax-lite completion SHELL`: what a shell reads to complete commands, options and files."""

import argparse
from typing import Any

import shtab

from fedjax_lite.cli.options import Parents
from fedjax_lite.cli.outcome import Outcome

__all__ = ["add"]

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """\
examples:
  eval "$(fedjax-lite completion bash)"                                          in this shell; the line may stand in ~/.bashrc
  fedjax-lite completion zsh > ~/.zfunc/_fedjax-lite                             a folder of zsh's fpath
  fedjax-lite completion fish > ~/.config/fish/completions/fedjax-lite.fish
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "completion", parents=[parents.json], help="the completion of commands and options in a shell", epilog=EXAMPLES
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=_completion)
    return parser


def _completion(options: argparse.Namespace) -> Outcome:
    script = shtab.complete(options.parser, shell=options.shell)
    return Outcome(script, {"shell": options.shell, "script": script})
