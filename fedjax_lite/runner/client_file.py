"""The table of clients as a file: clients.csv, and clients.parquet where pyarrow is installed."""

import csv
import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.runner.files import replacing, write

__all__ = ["CLIENTS", "csv_of", "save_table"]

CLIENTS = "clients.csv"


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


def csv_of(table: Mapping[str, Any]) -> str:
    """Write a table as CSV; what is not finite is an empty cell.

    >>> csv_of({"id": np.arange(2), "test_loss": np.array([0.5, np.nan])})
    'id,test_loss\\n0,0.5\\n1,\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*([x if np.isfinite(x) else "" for x in column.tolist()] for column in table.values()), strict=True))
    return text.getvalue()
