"""The evaluations in a run's report: numbers of the global model and of others, their spread over clients, baselines."""

from collections.abc import Sequence
from typing import Any

from fedjax_lite.metrics import in_order, is_evaluation, parted, shown
from fedjax_lite.report.curves import marked, spreads
from fedjax_lite.report.table import html_table, pairs

__all__ = ["baselines_body", "evaluation_body", "numbers_of", "together"]


def evaluation_body(evaluation: dict[str, Any], outside: Sequence[str], more: dict[str, Any] | None = None) -> str:
    """Write the numbers of an evaluation, "more" below them, and the spread over clients.

    >>> evaluation_body({"round": 3, "test_loss": 0.5}, [])
    '<table><tr><td>test loss</td><td>0.5</td></tr></table>'
    """
    numbers = {marked(name, outside): x for name, x in (numbers_of(evaluation) | (more or {})).items() if is_evaluation(name)}
    return (pairs(numbers) if numbers else "") + _spread({parted(name)[1]: each for name, each in spreads(evaluation).items()})


def numbers_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a record, in the order of display."""
    return {name: record[name] for name in in_order(record) if not isinstance(record[name], dict)}


def together(final: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Put an evaluation of other models beside the last one of the global model.

    >>> together({"test_clients": {"loss": {}}}, {"test_own_loss": 0.5, "test_clients": {"own_loss": {}}})
    {'test_clients': {'loss': {}, 'own_loss': {}}, 'test_own_loss': 0.5}
    """
    return final | {name: final.get(name, {}) | x if isinstance(x, dict) else x for name, x in others.items()}


def baselines_body(baselines: dict[str, dict[str, Any]]) -> str:
    """Write a table with a row a baseline, and a column a metric of an evaluation."""
    numbers = [name for found in baselines.values() for name, x in found.items() if is_evaluation(name) and not isinstance(x, dict)]
    names = list(dict.fromkeys(numbers))
    rows = [[baseline.replace("_", " "), *(shown(name, found.get(name)) for name in names)] for baseline, found in baselines.items()]
    return html_table(rows, ["", *(name.replace("_", " ") for name in names)])


def _spread(spread: dict[str, dict[str, Any]]) -> str:
    """Write a table with a row a metric: mean, standard deviation, worst decile and deciles over clients, or each of few clients."""

    def rows(kind):
        return [
            [name.replace("_", " "), *(shown(name, value) for value in (x["mean"], x["std"], x["worst_decile"])), *fair(x)]
            + [shown(name, value) for value in x[kind]]
            for name, x in spread.items()
            if kind in x
        ]

    def fair(x):
        return ["-" if x.get(name) is None else f"{x[name]:.3g}" for name in ("gini", "hurt")]

    head, text = ["client by client", "mean", "std", "worst 10 %", "Gini", "hurt"], ""
    if many := rows("deciles"):
        text += f'<div class="wide">{html_table(many, [*head, *(f"{percent} %" for percent in range(10, 100, 10))])}</div>'
        text += "<small>Under 10 % to 90 %: what about that share of the clients is at or below, interpolated between two of them.</small>"
    if few := rows("values"):
        numbers = range(1, max(map(len, few)) - len(head) + 1)
        text += f'<div class="wide">{html_table(few, [*head, *map(str, numbers)])}</div>'
        text += "<small>Under 1, 2, ...: each client, from the lowest on. Their worst 10 % are rounded up to whole clients.</small>"
    if any("hurt" in x for x in spread.values()):
        text += "<p><small>Under hurt: the fraction of clients for whom the global model is better.</small></p>"
    return text
