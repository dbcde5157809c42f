"""Who has what, and who took part, in a run's report: from the table with a row a client."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.report.counts import counted_bars
from fedjax_lite.report.numbers import csv_link
from fedjax_lite.report.population import population_svg
from fedjax_lite.report.spread import Sample, counted, histogram
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.report.who import LABEL, class_name

__all__ = ["participation_body", "partition_body"]

MOST_CLIENTS, MOST_CLASSES = 60, 40  # in the picture
MOST_CELLS = 100_000  # of the table of clients, that a page holds
MOST_BARS = 60  # numbers of rounds that have a bar each


def partition_body(columns: Mapping[str, Any], words: Sequence[str] = ()) -> str:
    """Draw how many examples clients have, and of which classes, and link to the whole table.

    Args:
        columns: of clients.csv. Without "examples" there is nothing to draw, without counts of labels there are sizes alone.
        words: the class names, by label.

    >>> table = {"id": [0, 1], "examples": [3, 5], "label_0": [3, 1], "label_1": [0, 4]}
    >>> partition_body(table).count("<rect")
    5
    >>> partition_body({"id": [0]})
    ''
    """
    if "examples" not in columns or not len(columns["examples"]):
        return ""
    sizes = np.array(columns["examples"], np.float64)
    counts = _label_counts(columns)
    told = f"{counted(len(sizes))} with {_range(sizes)} examples each, {sizes.sum():,.0f} in all."
    if counts.shape[1]:
        told += f" A client has examples of {(counts > 0).sum(axis=1).mean():.3g} of {counts.shape[1]} classes in the mean."
    sizes_figure = histogram("clients in %, by training examples", "training examples", [Sample("", STROKES[0], sizes)], True)
    return (
        f"<p>{escape(told)} {_table(columns)}</p>" + f'<div class="figures">{sizes_figure}{_picture(columns, counts, sizes, words)}</div>'
    )


def participation_body(columns: Mapping[str, Any]) -> str:
    """Draw for how many rounds clients were drawn; "" where the table does not know.

    >>> "1 of 3 clients was never drawn" in participation_body({"rounds": [0, 2, 4]})
    True
    """
    if "rounds" not in columns:
        return ""
    new = np.array(columns.get("new", np.zeros(len(columns["rounds"]))), np.float64) == 1
    rounds = np.array(columns["rounds"], np.float64)[~new]
    if not len(rounds) or np.isnan(rounds).any():
        return ""
    never = int(np.sum(rounds == 0))
    if never:
        told = f"{never:,} of {counted(len(rounds))} {'was' if never == 1 else 'were'} never drawn"
        told += f"; the others for {_range(rounds[rounds > 0])} rounds." if never < len(rounds) else "."
    else:
        told = f"{counted(len(rounds))}, each drawn for {_range(rounds)} rounds; none was never drawn."
    title, across = "clients in %, by rounds that they took part in", "rounds"
    if rounds.max() < MOST_BARS:
        figure = counted_bars(title, across, {"": np.bincount(rounds.astype(int)).tolist()})
    else:
        figure = histogram(title, across, [Sample("", STROKES[0], rounds)])
    return f'<p>{escape(told)}</p><div class="figures">{figure}</div>'


def _label_counts(columns: Mapping[str, Any]) -> np.ndarray:
    """Return the counts of labels `[clients, labels]`, in the order of labels."""
    names = sorted((name for name in columns if name.startswith(LABEL)), key=lambda name: int(name.removeprefix(LABEL)))
    empty = np.zeros((len(columns["examples"]), 0), np.int64)
    return np.stack([np.array(columns[name], np.int64) for name in names], axis=1) if names else empty


def _range(values: np.ndarray) -> str:
    """Write the range and the median of values.

    >>> _range(np.array([3.0, 4.0, 9.0])), _range(np.array([2.0, 2.0]))
    ('3 to 9 (median 4)', '2')
    """
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f} (median {np.median(values):,.4g})"


def _table(columns: Mapping[str, Any]) -> str:
    """Link to the table of all clients, or say where it is."""
    cells = len(columns) * len(columns["examples"])
    if cells > MOST_CELLS:
        return "<small>All clients are in clients.csv, beside this page.</small>"
    return csv_link("clients", {name: np.asarray(column).tolist() for name, column in columns.items()}, "All clients as CSV")


def _picture(columns: Mapping[str, Any], counts: np.ndarray, sizes: np.ndarray, words: Sequence[str]) -> str:
    """Draw the classes and sizes of clients, of many a sample."""
    rows = np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), MOST_CLIENTS)).round().astype(int))
    classes = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:MOST_CLASSES])
    named = columns.get("name", columns.get("id", range(len(sizes))))
    new = columns.get("new", np.zeros(len(sizes)))
    names = [f"{named[row]}{' (new)' if new[row] == 1 else ''}" for row in rows]
    known = np.nan_to_num(sizes[rows]).astype(np.int64)
    svg = population_svg(counts[rows][:, classes], known, names, [class_name(int(label), words) for label in classes])
    notes = [f"Of {counted(len(sizes))} {len(rows)} are drawn, taken evenly."] if len(rows) < len(sizes) else []
    notes += [f"Of {counts.shape[1]} classes the {len(classes)} most frequent are drawn."] if len(classes) < counts.shape[1] else []
    notes += ["A row is a client; a cell's shade goes with the square root of its examples."] if len(classes) else ["A row is a client."]
    title = "examples by client and class" if len(classes) else "examples by client"
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return f'<figure class="heat"><figcaption>{title}</figcaption><div class="wide">{svg}</div>{below}</figure>'
