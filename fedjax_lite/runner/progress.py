"""Show a run's progress on a terminal, and end a segment in order on Ctrl-C or SIGTERM."""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from fedjax_lite.metrics import is_evaluation, shown


class _Speed(ProgressColumn):
    """The column with rounds a second."""

    def render(self, task):
        return Text(f"{task.speed:.3g} rounds/s" if task.speed else "compiling")


class Progress:
    """A progress bar with rounds a second and the time left, shown within a `with` block.

    Args:
        rounds: rounds of the whole run.
        done: rounds that a resumed run has already done.
        show: False: no bar.
        console: the terminal to draw on; None: standard error. A notebook with ipywidgets gets a bar, an output that is no terminal none.
    """

    def __init__(self, rounds: int, done: int, show: bool, console: Console | None = None) -> None:
        console = Console(stderr=True) if console is None else console
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Bar(*columns, console=console, disable=not (show and draws(console)), speed_estimate_period=600)
        self._task = self._bar.add_task("", total=rounds, completed=done)

    def update(self, record: dict[str, Any]) -> None:
        """Move to the record's round and show its evaluation, or the loss of local training if there is none."""
        evaluated = [name for name in record if is_evaluation(name) and isinstance(record[name], float)]
        values = [f"{name} {shown(name, record[name], '.4f')}" for name in evaluated or ["loss"] if record.get(name) is not None]
        self._bar.update(self._task, completed=record["round"], description="  ".join(values))

    def note(self, text: str) -> None:
        """Show a text beside the bar."""
        self._bar.update(self._task, description=text)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._bar.stop()


def draws(console: Console) -> bool:
    """Return whether a bar can be drawn: on a terminal, or in a notebook, where rich needs ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def say(text: str) -> None:
    """Print `text` to standard error if that is a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


@contextmanager
def interruptible(note: Callable[[str], None], what: str = "segment") -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C or SIGTERM, so that a segment can end and be saved; a second signal has its usual effect.

    Yields a function that returns whether a signal has come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number, frame):
        seen.append(number)
        restore()
        note(f"stopping after this {what}; again to stop now")

    try:
        for number in before:
            signal.signal(number, on_signal)
        yield lambda: bool(seen)
    finally:
        restore()


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM act as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print a warning to users as one line, without the place in the code that gave it."""
    before = warnings.formatwarning

    def plain(message: Any, category: type[Warning], *place: Any, **more: Any) -> str:
        return f"warning: {message}\n" if category is UserWarning else before(message, category, *place, **more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before
