"""Pictures of a population: who has how many examples of which class, as SVG and as text."""

from typing import Any

import numpy as np

from fedjax_lite.data.arrays import labels_of
from fedjax_lite.report.axis import ticks
from fedjax_lite.report.population import population_svg
from fedjax_lite.report.who import class_name

__all__ = ["counts_of", "in_text", "picture"]

MOST_CLIENTS, MOST_CLASSES = 200, 100  # in a picture
ROWS, COLUMNS, BAR, BINS = 20, 62, 40, 8  # in a text: clients, classes, letters of the longest bar, bars


def picture(data: Any, *, classes: int | None = None) -> str:
    """Draw a population: a row a client with a cell for each class, darker for more examples, and a bar of all its examples.

    Args:
        data: a `FederatedData`, or a `Store`. Without whole numbers "y" as labels there are bars alone.
        classes: the number of classes; by default the highest label plus 1.

    Returns:
        SVG, which stands alone in a file or in a page. Of more than 200 clients 200 are drawn, taken evenly by row; of more than 100
        classes the 100 most frequent. Shades go with the square root of the count; clients and classes have their names, if there are few.

    >>> from fedjax_lite import data
    >>> picture(data.digits(data.partition.shards(clients=5), seed=0).train).startswith("<svg")
    True
    """
    rows = evenly(data.population, MOST_CLIENTS)
    counts = counts_of(data, rows, classes)
    columns = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:MOST_CLASSES])
    words = [class_name(int(label), data.words or ()) for label in columns]
    return population_svg(counts[:, columns], np.asarray(data.size)[rows], [client_name(data, int(row)) for row in rows], words)


def in_text(data: Any) -> str:
    """Describe a population in letters: its summary, how many clients have how many examples, and the classes of some clients.

    >>> from fedjax_lite import FederatedData
    >>> print(in_text(FederatedData.from_clients([{"y": np.array([0, 0, 1, 1])}, {"y": np.array([1])}])))
    2 clients, 5 examples; examples a client: min 1, median 2, mean 2.5, max 4
      y: int32[]
      labels: 2 classes of 2 to 3 examples; 1.5 classes a client
      examples a client
                1 to 1          ######################################## 1
                4 to 4          ######################################## 1
      classes: a row a client, a column a label from 0; tenths of its examples, 9 for all, . for fewer than a tenth
                 0          4  55
                 1          1   9
    """
    return "\n".join([data.summary(), *_bars(np.asarray(data.size)), *_map(data)])


def counts_of(data: Any, rows: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Count the examples of each class of some clients: int64 `[rows, classes]`, without classes where there are no labels."""
    labels = labels_of(data.examples)
    if labels is None or not len(labels) or labels.min() < 0:
        return np.zeros((len(rows), 0), np.int64)
    most = int(labels.max()) + 1 if classes is None else classes
    start, size = np.asarray(data.start, np.int64), np.asarray(data.size)
    each = [labels[start[row] : start[row] + size[row]] for row in rows]
    return np.stack([np.bincount(of[of < most], minlength=most) for of in each])


def client_name(data: Any, row: int) -> str:
    """Return the name of the client in a row; its number where it has none."""
    return str(row) if data.names is None else data.names[row]


def evenly(population: int, most: int) -> np.ndarray:
    """Return the rows of at most so many clients, evenly.

    >>> evenly(3, 5).tolist(), evenly(9, 3).tolist()
    ([0, 1, 2], [0, 4, 8])
    """
    return np.arange(population) if population <= most else np.linspace(0, population - 1, most).round().astype(int)


def _bars(size: np.ndarray) -> list[str]:
    """Write how many clients have how many examples, a line a bin that has clients."""
    edges = np.unique(np.ceil(ticks(float(size.min()), float(size.max()) + 1, BINS))).astype(int)
    counts, _ = np.histogram(size, edges)
    lines = ["  examples a client"]
    for k in np.flatnonzero(counts):
        inside = size[(size >= edges[k]) & (size < edges[k + 1] + (k == len(counts) - 1))]
        bar = "#" * max(1, round(BAR * counts[k] / counts.max()))
        lines.append(f"    {inside.min():>9,} to {inside.max():<9,}  {bar} {counts[k]:,}")
    return lines


def _map(data: Any) -> list[str]:
    """Write the classes of some clients in tenths of their examples."""
    rows = evenly(data.population, ROWS)
    counts = counts_of(data, rows)
    if not counts.shape[1] or counts.shape[1] > COLUMNS:
        return []
    some = f"{len(rows)} of {data.population:,} clients" if len(rows) < data.population else "a row a client"
    lines = [f"  classes: {some}, a column a label from 0; tenths of its examples, 9 for all, . for fewer than a tenth"]
    for row, of in zip(rows.tolist(), counts.tolist(), strict=True):
        tenths = "".join(" " if not n else "." if 10 * n < sum(of) else str(min(9, 10 * n // sum(of))) for n in of)
        lines.append(f"  {client_name(data, row)[:12]:>12}  {sum(of):>9,}  {tenths}".rstrip())
    return lines
