"""Who they are: the clients that a model serves worst, and those that lose most by another model, by name."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.report.table import html_table

__all__ = ["class_name", "who"]

MOST = 5  # clients of a table
CLASSES = 3  # of a client, the most frequent ones
LABEL = "label_"  # before a label, the name of the column that counts it


def class_name(label: int, words: Sequence[str]) -> str:
    """Return the class of a label: its word, or else its number.

    >>> class_name(1, ["cat", "dog"]), class_name(2, ())
    ('dog', '2')
    """
    return words[label] if label < len(words) else str(label)


def who(columns: Mapping[str, Any], models: Mapping[str, np.ndarray], lower: bool, words: Sequence[str] = ()) -> str:
    """List the clients that the first model serves worst, and for each other model those that lose most by it.

    Args:
        columns: of a table with a row a client: "id", and perhaps "name", "examples" and "label_0", "label_1", ...
        models: a model -> its metric at each client, float64 `[clients]`, NaN where a client has none.
        lower: whether the metric is better when it is lower.
        words: the class names.

    Returns:
        Headed tables; "" where no client has a value.

    >>> who({"id": [0, 1], "name": ["ann", "bob"]}, {"global model": np.array([0.5, 0.25])}, lower=False).count("bob")
    1
    """
    first, *others = models
    badness = {f"Served worst by the {first}": models[first] if lower else -models[first]}
    for other in others:
        loss = models[other] - models[first] if lower else models[first] - models[other]
        badness[f"Lose most by {other}"] = np.where(loss > 0, loss, np.nan)
    text = ""
    for title, bad in badness.items():
        order = np.argsort(-bad, kind="stable")[: min(MOST, int(np.isfinite(bad).sum()))]  # NaN comes last
        if len(order):
            rows = [[*_client(columns, int(k), words), *(_number(x[k]) for x in models.values())] for k in order]
            head = [name for name in ("name", "examples", "classes") if name in _facts(columns)]
            text += f'<div class="wide"><small>{escape(title)}</small>{html_table(rows, ["client", *head, *models])}</div>'
    return text


def _facts(columns: Mapping[str, Any]) -> list[str]:
    """Return the names of what a table tells of a client beside its number."""
    labels = ["classes"] if any(name.startswith(LABEL) for name in columns) else []
    return [name for name in ("name", "examples") if name in columns] + labels


def _client(columns: Mapping[str, Any], row: int, words: Sequence[str]) -> list[Any]:
    """Return a client's number, name, examples and most frequent classes, where the table has these."""
    facts = _facts(columns)
    cells = [columns["id"][row], *(columns[name][row] for name in facts if name in columns)]
    counts = {int(name.removeprefix(LABEL)): int(x[row]) for name, x in columns.items() if name.startswith(LABEL)}
    frequent = sorted((label for label in counts if counts[label]), key=lambda label: -counts[label])[:CLASSES]
    shares = [f"{class_name(label, words)} {100 * counts[label] / sum(counts.values()):.0f} %" for label in frequent]
    return [*cells, *([", ".join(shares)] if "classes" in facts else [])]


def _number(value: float) -> float | None:
    """Return a value, None for NaN."""
    return float(value) if np.isfinite(value) else None
