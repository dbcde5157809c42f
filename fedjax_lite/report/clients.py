"""The clients in a run's report: how well each model does for each client, and who gains or loses by a model of its own."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fedjax_lite.metrics import EVALUATIONS, FINETUNED, OWN, headline, is_evaluation, lower_is_better, of_model
from fedjax_lite.report.spread import Sample, counted, histogram, points, sorted_curves
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.report.who import who

MODELS = {"": "global model", OWN: "own models", FINETUNED: "global model after fine-tuning"}


def clients_body(columns: Mapping[str, Any], words: Sequence[str] = ()) -> str:
    """Draw how well the models do for each client: sorted, as histograms, against its number of examples; list who gains least or loses.

    Args:
        columns: of a table with a row a client, all of one length, None where a client has no number. "new" is 1 at a client that never
            took part, "examples" counts its training examples; both may be absent. Names of metrics begin as an evaluation's, then with
            `OWN` for each client's own model or `FINETUNED` for the global one after fine-tuning. "id", "name" and the counts of labels
            say who listed clients are. Other columns are not used.
        words: the class names, by label.

    Returns:
        A sentence, figures of the headline metric and tables of clients; "" if no client has a metric.

    >>> clients_body({"new": [0, 0], "test_accuracy": [0.5, 1.0], "test_own_accuracy": [0.75, None]}).count("<figure>")
    3
    >>> clients_body({"new": [0, 0], "test_accuracy": [None, None]})
    ''
    """
    values = {name: _numbers(column) for name, column in columns.items() if is_evaluation(name)}
    values = {name: x for name, x in values.items() if not np.isnan(x).all()}
    if not values:
        return ""
    metric = headline(dict.fromkeys("".join((prefix, name)) for prefix, _, name in map(of_model, values)))
    prefix, _, name = of_model(metric)
    count, lower = len(next(iter(columns.values()))), lower_is_better(metric)
    new = _numbers(columns["new"]) == 1 if "new" in columns else np.zeros(count, bool)
    by_model = {whose: values[full] for whose in MODELS if (full := prefix + whose + name) in values}
    samples = _samples(by_model, new)
    plain, title = name.replace("_", " "), f"{name.replace('_', ' ')} on {EVALUATIONS[prefix]}"
    drawn = list(samples.values())
    figures = [
        sorted_curves(f"{title}, clients sorted by each model", drawn, lower),
        histogram(f"clients in %, by {title}", plain, drawn, lower),
        points(f"{title}, a point for each client", "training examples", drawn, _numbers(columns["examples"]), lower)
        if "examples" in columns
        else "",
        _gains(plain, samples, lower),
    ]
    told = _told(title, new, np.array([sample.values for sample in drawn]))
    listed = who(columns, {MODELS[whose]: x for whose, x in by_model.items()}, lower, words) if "id" in columns else ""
    return f'<p>{escape(told)}</p><div class="figures">{"".join(figures)}</div>{listed}'


def _numbers(column: Any) -> np.ndarray:
    """Return a column in float64, with NaN at clients that have no finite number."""
    numbers = np.array([np.nan if value is None else value for value in column], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _samples(by_model: Mapping[str, np.ndarray], new: np.ndarray) -> dict[tuple[str, str], Sample]:
    """Return samples by clients and model, new clients apart; a model of some clients has one stroke in all figures."""
    groups = {", other clients": ~new, ", new clients": new} if new.any() else {"": ~new}
    found = {}
    for k, (group, members) in enumerate(groups.items()):
        for stroke, (whose, model) in zip(STROKES[k * len(MODELS) :], MODELS.items(), strict=False):
            values = np.where(members, by_model.get(whose, np.nan), np.nan)
            if not np.isnan(values).all():
                found[group, whose] = Sample(model + group, stroke, values)
    return found


def _gains(metric: str, samples: Mapping[tuple[str, str], Sample], lower: bool) -> str:
    """Draw each client's difference between the other models and the global one, and count who loses."""
    differences, notes = [], [f"{'Below' if lower else 'Above'} zero is better than the global model."]
    for (group, whose), sample in samples.items():
        if whose and (group, "") in samples:
            change = sample.values - samples[group, ""].values
            if not np.isnan(change).all():
                differences.append(sample._replace(values=change))
                notes.append(f"{sample.name}: {_hurt(change if lower else -change)}.")
    return sorted_curves(f"{metric} minus the global model's, clients sorted", differences, zero=True, notes=notes) if differences else ""


def _hurt(worse: np.ndarray) -> str:
    """Count clients that lose, gain and stay, by each client's loss, NaN where unknown.

    >>> _hurt(np.array([0.5, 0.0, -1.0, -0.5, np.nan]))
    '1 of 4 clients loses, 2 gain, 1 stays'
    """
    lose, gain, stay = (int(np.sum(of)) for of in (worse > 0, worse < 0, worse == 0))
    verbs = [f"{verb}{'s' if number == 1 else ''}" for number, verb in ((lose, "lose"), (gain, "gain"), (stay, "stay"))]
    return f"{lose:,} of {counted(lose + gain + stay)} {verbs[0]}, {gain:,} {verbs[1]}, {stay:,} {verbs[2]}"


def _told(title: str, new: np.ndarray, values: np.ndarray) -> str:
    """Count the clients, the new clients, and the clients without a value, which is NaN for all samples."""
    text = counted(len(new))
    if new.any():
        text += f", {int(new.sum()):,} of them new: a new client never took part in training"
    missing = int(np.isnan(values).all(axis=0).sum())
    return f"{text}." + (f" {counted(missing)} without {title} {'is' if missing == 1 else 'are'} not drawn." if missing else "")
