"""`fedjax-lite data CONFIG`: what a configuration's data are, and who has how much of what."""

import argparse
from pathlib import Path
from typing import Any

from fedjax_lite.cli.options import Parents
from fedjax_lite.cli.outcome import Outcome
from fedjax_lite.configuration.config import load, seed_of
from fedjax_lite.configuration.data import found_in, load_data
from fedjax_lite.data.describe import data_page, data_text, populations, save_parts
from fedjax_lite.runner.files import DATA_PAGE, write

__all__ = ["add"]

EXAMPLES = """\
examples:
  fedjax-lite data configs/quickstart.toml
  fedjax-lite data configs/har.toml --set data.path=people.csv --save stores/people
"""


def add(commands: Any, parents: Parents) -> argparse.ArgumentParser:
    """Add the command."""
    parser = commands.add_parser(
        "data", parents=[parents.config], help="what a configuration's data is: who has how much of what", epilog=EXAMPLES
    )
    parser.add_argument(
        "--save", type=Path, metavar="STORE", help="write the training part as a store, and the held-out part as STORE-test"
    )
    parser.add_argument("--out", type=Path, help=f"the page to write (default: runs/NAME/{DATA_PAGE})")
    parser.set_defaults(run=_data)
    return parser


def _data(options: argparse.Namespace) -> Outcome:
    config = load(options.config, options.set)
    found = list(found_in(config))
    source = load_data(config, seed_of(config.at()))
    lines = [*found, data_text(source)]
    if options.save:
        lines.append(f"written to {options.save}; in a configuration:\n{save_parts(options.save, source)}")
    out = options.out or Path("runs") / config.values["name"] / DATA_PAGE
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, data_page(config.values["name"], found, source))
    parts = {title: part.fingerprint() for title, part in populations(source).items()}
    return Outcome("\n".join([*lines, f"written to {out}"]), {"found": found, "parts": parts, "store": options.save, "page": out})
