"""What a contest gives: a table by rank, the text that is printed, the page, and the files that hold both."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_lite.report.table import Cell, in_columns
from fedjax_lite.runner.files import write

PAGE, VALUES = "arena.html", "arena.json"
MOST = 14  # rows of a table that are printed: the best, and a contender's neighbours


class Arena(NamedTuple):
    """A contest's results as plain data; `print` shows the ranking."""

    kind: str  # "aggregator", "attack" or "uplink"
    name: str | None  # the contender's
    table: tuple[dict[str, Any], ...]  # a row each, the best first
    lines: tuple[str, ...]  # what is printed
    page: str  # HTML
    values: str  # JSON: every score

    def ranking(self) -> list[str]:
        """The names by rank, the best first."""
        return [row[ROW[self.kind]] for row in self.table]

    def row(self, name: str | None = None) -> dict[str, Any]:
        """The row of a name, by default the contender's.

        Raises:
            KeyError: for a name that took no part.
        """
        return {row[ROW[self.kind]]: row for row in self.table}[self.name if name is None else name]

    def save(self, folder: str | Path) -> Path:
        """Write `arena.html`, the page, and `arena.json`, every score; return the folder, which is made if it is not there."""
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / PAGE, self.page)
        write(folder / VALUES, self.values)
        return folder

    def __str__(self) -> str:
        return "\n".join(self.lines)


ROW = {"aggregator": "rule", "attack": "attack", "uplink": "uplink"}  # kind -> the column with a row's name


def few(rows: Sequence[dict[str, Any]], name: str | None, column: str) -> list[dict[str, Any] | None]:
    """Choose rows to print: the first, and those around `name`; None stands for rows between.

    >>> [row and row["rule"] for row in few([{"rule": str(i)} for i in range(40)], "30", "rule")][-4:]
    [None, '29', '30', '31']
    """
    if len(rows) <= MOST:
        return list(rows)
    own = next((i for i, row in enumerate(rows) if row[column] == name), 0)
    kept = sorted({*range(MOST - 3), *range(max(own - 1, 0), min(own + 2, len(rows)))}) if own >= MOST - 3 else list(range(MOST))
    found: list[dict[str, Any] | None] = []
    for before, i in zip([-1, *kept], kept, strict=False):
        found += [None] * (i > before + 1) + [rows[i]]
    return found


def printed(
    head: Sequence[str], rows: Sequence[dict[str, Any]], own: str | None, cells: Callable[[Mapping[str, Any]], list[Any]]
) -> list[str]:
    """Write the rows that `few` chooses, dots for those between, and how the contender stands against each where there is one.

    Args:
        head: of the columns; the second is that of the names.
        rows: by rank.
        own: the contender's name.
        cells: of a row, without how the contender stands against it.
    """
    body = []
    for row in few(rows, own, head[1]):
        beside = [] if row is None or own is None else [difference(row).split(" (")[0] or "-"]
        body.append(["...", *[""] * (len(head) - 1)] if row is None else [*words(cells(row)), *beside])
    return in_columns([head, *body])


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """Write a mean and its interval's half width; with one seed the mean alone.

    >>> with_interval({"x": 0.5, "x_low": 0.4, "x_high": 0.6}, "x"), with_interval({"x": 0.5, "x_low": None, "x_high": None}, "x")
    ('0.500 ±0.100', '0.500')
    """
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.3f}" + ("" if low is None else f" ±{(high - low) / 2:.3f}")


def spread(row: Mapping[str, Any], name: str) -> Cell:
    """Return a mean with its interval as a cell that is sorted by the mean."""
    return Cell(with_interval(row, name), row[name])


def against(row: Mapping[str, Any]) -> Cell:
    """Return how a contender stands against a row as a cell that is sorted by the difference."""
    return Cell(difference(row), row.get("difference"))


def words(cells: Sequence[Any]) -> list[str]:
    """Write cells in print."""
    return [cell.text if isinstance(cell, Cell) else str(cell) for cell in cells]


def difference(row: Mapping[str, Any]) -> str:
    """Write how a contender stands against a row: verdict, difference and interval; "" for its own row."""
    if "verdict" not in row:
        return ""
    between = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
    return f"{row['verdict']} {row['difference']:+.3f}{between}"


def counted(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count the verdicts against the other rows."""
    said = {"wins": "better than", "ties": "level with", "loses": "worse than", "open": "not told apart by one seed from"}
    numbers = {verdict: sum(row.get("verdict") == verdict for row in rows) for verdict in said}
    return ", ".join(f"{words} {numbers[verdict]}" for verdict, words in said.items() if numbers[verdict])
