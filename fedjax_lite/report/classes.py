"""How the model tells classes apart: a row a class, and the confusion matrix or, of many classes, its largest entries."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fedjax_lite.report.heat import heat_map
from fedjax_lite.report.table import html_table

MOST_DRAWN, MOST_LISTED = 26, 20


def classes_body(found: Mapping[str, Any]) -> str:
    """Write the entry "classification" of a summary: a table of classes, and who is taken for whom."""
    names, rates = found["classes"], ("recall", "precision", "auc")
    rows = [[names[c], found["examples"][c], *(found[rate][c] for rate in rates)] for c in range(len(names))]
    text = html_table(rows, ["", "examples", *rates])
    if "confusion" not in found:
        return text
    matrix = found["confusion"]
    if len(names) > MOST_DRAWN:
        return text + _largest(names, matrix)
    shares = [[None if not sum(row) else n / sum(row) for n in row] for row in matrix]
    notes = [[f"{n} of {sum(row)} of {names[i]} taken for {names[j]}" for j, n in enumerate(row)] for i, row in enumerate(matrix)]
    say = lambda share: "" if not share else f"{100 * share:.0f} %" if share >= 0.005 else "<1 %"  # noqa: E731
    title = "a class's examples (row) by what the model takes them for (column)"
    return text + heat_map(title, names, names, shares, notes, (0.0, 1.0), say=lambda share: escape(say(share)))


def _largest(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Write the most frequent confusions."""
    wrong = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    rows = [[names[i], names[j], n, f"{100 * n / sum(matrix[i]):.3g} %"] for n, i, j in sorted(wrong, key=lambda x: (-x[0], x[1], x[2]))]
    head = ["class", "taken for", "examples", "of the class's"]
    listed = html_table(rows[:MOST_LISTED], head)
    return f"<p><small>Most frequent confusions, {min(len(rows), MOST_LISTED)} of {len(rows)}:</small></p>{listed}"
