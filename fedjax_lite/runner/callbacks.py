"""What a user's functions are told of a run, between its segments: records, evaluations, and the model where they ask for it."""

import copy
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fedjax_lite.base import Tree
from fedjax_lite.metrics import is_evaluation
from fedjax_lite.runner.hosts import agreed, leads
from fedjax_lite.runner.records import Records
from fedjax_lite.writers.writer import Writer

__all__ = ["Callbacks", "callbacks_of"]


class Callbacks(NamedTuple):
    """A user's functions."""

    on_round: Callable[[dict[str, Any]], Any] | None
    on_evaluation: Callable[..., Any] | None
    takes_params: bool  # whether on_evaluation does
    writers: Sequence[Writer]

    def tell(self, records: Records, params: Callable[[], Tree], folder: Path | None) -> BaseException | None:
        """Tell all of a segment's records; return what one of them raised.

        With several processes functions are called in each, and writers in the leading one alone.
        """
        try:
            for record in records if self.on_round else ():
                self.on_round(copy.deepcopy(record))  # type: ignore[misc]
            if self.on_evaluation and records and any(map(is_evaluation, records[-1])):
                self.on_evaluation(copy.deepcopy(records[-1]), *([jax.device_get(params())] if self.takes_params else []))
            for writer in self.writers if leads() else ():
                writer.write(copy.deepcopy(records), folder)
        except BaseException as error:  # sys.exit() too: what has been computed is saved in any case
            return error
        return None

    def failed(self, error: BaseException | None) -> bool:
        """Return whether a function has raised in any process; those without functions are asked, too."""
        return agreed(error is not None)


def callbacks_of(on_round: Any, on_evaluation: Any, writers: Sequence[Writer]) -> Callbacks:
    """Check a user's functions.

    Raises:
        TypeError: naming the argument.
    """
    for name, function in (("on_round", on_round), ("on_evaluation", on_evaluation)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function of a record, or None, got {function!r}")
    return Callbacks(on_round, on_evaluation, on_evaluation is not None and _takes_params(on_evaluation), tuple(writers))


def _takes_params(function: Callable[..., Any]) -> bool:
    """Return whether a function takes two arguments by position: a record and the model."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a few written in C
        return False
    try:
        signature.bind({}, {})
    except TypeError:
        return False
    return True
