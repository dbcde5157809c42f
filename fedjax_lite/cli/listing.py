"""`fedjax-lite list`: every name that a configuration can use."""

import argparse
import inspect
import shutil
import sys
from typing import Any

from fedjax_lite.cli.options import Parents
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.configuration.algorithm import others_keys, own_keys
from fedjax_lite.configuration.registry import KINDS, names

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite list
  fedjax-lite list aggregator
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser("list", parents=[parents.json], help="every name a configuration can use", epilog=EXAMPLES)
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="only this kind, with the keys of each name")
    parser.set_defaults(run=_list)
    return parser


def _list(options: argparse.Namespace) -> Outcome:
    """Write every name by kind; of one kind also each name's keys."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    kinds = [options.kind] if options.kind else list(KINDS)
    lines, values = [], {}
    for kind in kinds:
        factories = names(kind)
        lines.append(f"{kind}  ({KINDS[kind].where})")
        width = max(map(len, factories), default=0)
        for name, factory in factories.items():
            line = f"  {name:<{width}}  {_summary(factory)}".rstrip()
            lines.append(line if len(line) <= columns else line[: columns - 3] + "...")
            if options.kind:
                lines.append(f"  {'':<{width}}  {_keys(factory, kind)}")
        lines.append("")
        values[kind] = {name: {"summary": _summary(factory), "keys": _keys(factory, kind)} for name, factory in factories.items()}
    return Outcome("\n".join(lines) + "\n", values)


def _summary(factory: Any) -> str:
    """Return the first line of a factory's docstring."""
    return (inspect.getdoc(factory) or "").split("\n")[0].replace("``", "`")


def _keys(factory: Any, kind: str) -> str:
    """Write a factory's keys with their defaults; of an algorithm only keys that no other section gives."""
    parameters = own_keys(factory) if kind == "algorithm" else inspect.signature(factory).parameters.values()
    keys = ", ".join(_key(p) for p in parameters) or "none"
    return f"keys: {keys}; from other sections: {', '.join(others_keys(factory))}" if kind == "algorithm" else f"keys: {keys}"


def _key(parameter: inspect.Parameter) -> str:
    """Write a key with its default; other keys, which the function hands on, by their argument's name."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"and {parameter.name.replace('_', ' ')}"
    return parameter.name if parameter.default is parameter.empty else f"{parameter.name} = {parameter.default}"
