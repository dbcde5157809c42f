"""A progress bar with rounds a second and the time left; silent where the output is not a terminal."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text


class _Speed(ProgressColumn):
    def render(self, task):
        return Text(f"{task.speed:.1f} rounds/s" if task.speed else "compiling")


class Progress:
    """A context whose `update` is told the record of the last round."""

    def __init__(self, rounds: int, done: int, show: bool) -> None:
        console = Console(stderr=True)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Bar(*columns, console=console, disable=not (show and console.is_terminal), speed_estimate_period=600)
        self._task = self._bar.add_task("", total=rounds, completed=done)

    def update(self, record: dict[str, Any]) -> None:
        """Move to the record's round and show its loss, or its test metrics if it has some."""
        shown = [name for name in record if name.startswith("test_") and isinstance(record[name], float)] or ["loss"]
        text = "  ".join(f"{name} {record[name]:.4f}" for name in shown if record.get(name) is not None)
        self._bar.update(self._task, completed=record["round"], description=text)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._bar.stop()
