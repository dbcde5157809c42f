"""The command line: `fedjax-lite COMMAND`; each command is a file of this folder."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import jax

from fedjax_lite.cli.outcome import FAILED, INTERRUPTED, INVALID, Outcome, as_json
from fedjax_lite.cli.parser import Misuse, parser_of
from fedjax_lite.runner.progress import plain_warnings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit status: 0; 1 for a run that failed or diverged; 2 for bad input; 3 for what ended by its budget, with what it had; 130
        when interrupted.

    Raises:
        SystemExit: for arguments that no command takes, with 2, and for --help, with 0.
    """
    try:
        options = parser_of().parse_args(arguments)
    except Misuse as error:
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            print(json.dumps({"exit_status": INVALID, "error": error.message}))
        raise
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs each failure several times that comes as an error anyway
    try:
        with plain_warnings():
            outcome = options.run(options)
        _print(outcome, options.json)
        return outcome.status
    except ValueError as error:
        return _failed(f"error: {error}", INVALID, options.json)
    except BrokenPipeError:  # of `| head`
        return 0
    except (
        FloatingPointError,
        OSError,
        ImportError,
        jax.errors.JaxRuntimeError,
    ) as error:  # ImportError: of a package that an extra brings
        return _failed(f"error: {error}", FAILED, options.json)
    except KeyboardInterrupt as error:
        return _failed(f"interrupted; {str(error) or options.kept(options)}", INTERRUPTED, options.json)


def _print(outcome: Outcome, json_wanted: bool) -> None:
    """Print an outcome as text, or as one JSON object."""
    text = as_json(outcome) if json_wanted else outcome.text
    _say(text, end="" if text.endswith("\n") or not text else "\n")


def _say(text: str, end: str = "\n") -> None:
    """Print to standard output at once; where that refuses, raise its error here, and have no second one when Python ends."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _failed(message: str, status: int, json_wanted: bool) -> int:
    """Print what went wrong to standard error, and as a JSON object where one is wanted; return the status."""
    print(message, file=sys.stderr)
    if json_wanted:
        with suppress(OSError):  # of the output itself, which may be what has failed
            _say(json.dumps({"exit_status": status, "error": message.removeprefix("error: ")}))
    return status
