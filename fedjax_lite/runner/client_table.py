"""The table with a row a client: its columns, and its files, clients.csv, and clients.parquet where pyarrow is installed."""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.base import Mean
from fedjax_lite.data.arrays import labels_of
from fedjax_lite.runner.files import replacing, write

__all__ = ["CLIENTS", "columns_of", "csv_of", "facts_of", "read_table", "save_table", "stacked"]

CLIENTS = "clients.csv"
MOST_LABELS = 100  # columns of label counts; of more classes there are none


def facts_of(train: Any, held_out: Any, drawn: np.ndarray, new: int) -> dict[str, np.ndarray]:
    """Return the columns of what each client is: its number, its name, its examples and their labels, and its rounds."""
    size, number = np.asarray(train.size, np.int64), train.population
    columns = {"id": np.arange(number)} | ({} if train.names is None else {"name": np.array(train.names, object)})
    columns |= {"new": np.full(number, new), "examples": size, "rounds": np.asarray(drawn, np.int64)}
    if held_out is not None:
        columns["held_out"] = np.asarray(held_out.size, np.int64)
    labels = labels_of(train.examples)
    if labels is None or not len(labels) or not 0 <= labels.min() <= labels.max() < MOST_LABELS:
        return columns
    start = np.asarray(train.start, np.int64)
    for label in range(int(labels.max()) + 1):
        before = np.concatenate([[0], np.cumsum(labels == label)])  # how many examples have the label in front of each row
        columns[f"label_{label}"] = before[start + size] - before[start]
    return columns


def columns_of(sums: Mapping[str, Mean], prefix: str) -> dict[str, np.ndarray]:
    """Return the columns of metrics; NaN for a client without a count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = {name: [np.asarray(x, np.float64) for x in metric] for name, metric in sums.items()}
        return {prefix + name: np.where(count > 0, total / count, np.nan) for name, (total, count) in each.items()}


def stacked(first: dict[str, np.ndarray], then: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put rows under rows; NaN where a table lacks a column, for labels 0, for names ""."""
    rows = [len(table["id"]) for table in (first, then)]

    def column(name: str) -> np.ndarray:
        empty = "" if name == "name" else 0 if name.startswith("label_") else np.nan
        return np.concatenate([table.get(name, np.full(n, empty)) for table, n in zip((first, then), rows, strict=True)])

    return {name: column(name) for name in [*first, *(name for name in then if name not in first)]}


def save_table(folder: Path, table: Mapping[str, np.ndarray]) -> None:
    """Write a table of clients into a folder, if it has columns."""
    if not table:
        return
    write(folder / CLIENTS, csv_of(table))
    if find_spec("pyarrow") is not None:
        import pyarrow
        import pyarrow.parquet

        with replacing((folder / CLIENTS).with_suffix(".parquet")) as part:
            pyarrow.parquet.write_table(pyarrow.table(dict(table)), part)


def read_table(folder: Path) -> dict[str, np.ndarray]:
    """Read a folder's table of clients: names as text, whole numbers as int64, others as float64, NaN for an empty cell; {} where none is.

    Raises:
        ValueError: for a table that is damaged.
    """
    path = folder / CLIENTS
    if not path.exists():
        return {}
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
        columns = zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)
        return {name: _typed(name, cells) for name, cells in columns}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): resume the run, which writes it anew") from None


def _typed(name: str, cells: Sequence[str]) -> np.ndarray:
    """Return a column's cells as an array."""
    if name == "name":
        return np.array(cells, object)
    if all(map(str.isdecimal, cells)):
        return np.array(cells, np.int64) if cells else np.zeros(0, np.int64)
    return np.array([float(cell) if cell else np.nan for cell in cells])


def csv_of(table: Mapping[str, Any]) -> str:
    """Write a table as CSV; what is not finite is an empty cell.

    >>> csv_of({"id": np.arange(2), "test_loss": np.array([0.5, np.nan])})
    'id,test_loss\\n0,0.5\\n1,\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    cells = ([x if isinstance(x, str) or np.isfinite(x) else "" for x in column.tolist()] for column in table.values())
    writer.writerows(zip(*cells, strict=True))
    return text.getvalue()
