"""The HTML page of a run: its status, metrics, curves over rounds, settings, and facts about data, code and device."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from fedjax_lite.metrics import EVALUATIONS, HOURS, ON_PUBLIC, SPREAD, in_order, is_evaluation, lower_is_better, parted, scale_of, shown
from fedjax_lite.report.axis import IN_HOURS
from fedjax_lite.report.chart import Series, line_chart
from fedjax_lite.report.classes import classes_section
from fedjax_lite.report.clients import clients_section
from fedjax_lite.report.document import document
from fedjax_lite.report.staleness import staleness_section
from fedjax_lite.report.table import html_table

MARK = "\N{DAGGER}"  # at a metric that a private run's guarantee does not cover


def report(
    name: str,
    summary: dict[str, Any],
    records: Sequence[dict[str, Any]],
    config: str = "",
    clients: Mapping[str, Any] | None = None,
) -> str:
    """Write a run as one HTML page.

    Args:
        name: the page's heading.
        summary: the dict in summary.json.
        records: the dicts in metrics.jsonl.
        config: the TOML text of the run's settings.
        clients: the columns of clients.csv.
    """
    final = _together(summary["final"], summary.get("other_models") or {})
    of_new = summary.get("new_clients") or {}
    spread = {parted(name)[1]: each for name, each in _spreads(final).items()}
    numbers = {key: final[key] for key in in_order(final) if not isinstance(final[key], dict)}
    outside = (summary.get("privacy") or {}).get("outside", [])
    numbers |= {key: x for key, x in (summary.get("classification") or {}).items() if is_evaluation(key)}
    measured = list(filter(is_evaluation, numbers))
    evaluated = {_marked(key, outside): numbers[key] for key in measured}
    trained = {_marked(key, outside): value for key, value in numbers.items() if key not in measured and key != "round"}
    made_with = {f"{part} {key}": x for part in ("data", "test", "code", "device") for key, x in (summary.get(part) or {}).items()}
    rounds = f"{summary['rounds']} round{'' if summary['rounds'] == 1 else 's'}"
    rounds += f" and {final[HOURS]:.3g} virtual hours" if final.get(HOURS) else ""
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p><span class="status">{escape(summary["status"].replace("_", " "))}</span> after {rounds}, {_duration(summary["seconds"])}</p>',
        f'<p class="error">{escape(summary["error"])}</p>' if summary.get("error") else "",
        f"<h2>Evaluation after round {final['round']}</h2>{_pairs(evaluated)}{_spread(spread)}" if evaluated else "",
        classes_section(summary["classification"], final["round"]) if summary.get("classification") else "",
        _new(of_new, outside),
        clients_section(clients, summary.get("words", ())) if clients else "",
        f"<h2>Baselines after as many rounds</h2>{_baselines({'this run': final} | summary['baselines'])}"
        if summary.get("baselines")
        else "",
        f"<h2>Training in round {final['round']}</h2>{_pairs(trained)}" if trained else "",
        f"<h2>Models and traffic</h2>{_pairs(_travelled(summary['traffic']))}" if summary.get("traffic") else "",
        staleness_section({"this run": summary["staleness"]}) if summary.get("staleness") else "",
        _privacy(summary["privacy"]) if summary.get("privacy") else "",
        f'<h2>Curves</h2><div class="figures">{"".join(_figures(records, outside))}</div>' if records else "",
        f"<h2>Configuration</h2><pre>{escape(config)}</pre>" if config else "",
        f"<h2>Made with</h2>{_pairs(made_with)}",
    ]
    return document(name, "".join(parts))


def _figures(records: Sequence[dict[str, Any]], outside: Sequence[str]) -> list[str]:
    """Draw a figure a metric: its curves in local training and in the evaluation, with the spread over clients."""
    names = in_order(dict.fromkeys(name for record in records for name, value in record.items() if isinstance(value, float)))
    evaluated = [parted(name) for name in names if is_evaluation(name)]
    spreads = [(record["round"], _spreads(record)) for record in records]
    figures = []
    hours = {record["round"]: record[HOURS] for record in records if HOURS in record}
    for prefix, name in evaluated:
        curves = {_marked(EVALUATIONS[prefix], outside, prefix + name): _series(records, prefix + name)}
        if name in names:
            curves[_marked("local training", outside, name)] = _series(records, name)
        spread = [(x, each.get(prefix + name, {})) for x, each in spreads]
        quantiles = [(x, each.get("deciles") or each.get("values") or [None]) for x, each in spread]
        band = [(x, values[0] / scale_of(name), values[-1] / scale_of(name)) for x, values in quantiles if None not in values]
        shaded = "10 % to 90 % of clients" if any("deciles" in each for _, each in spread) else "lowest to highest client"
        figures.append(line_chart(name.replace("_", " "), curves, band, shaded, lower_is_better(name), say=axis_writer(name)))
        if hours:
            first = dict(list(curves.items())[:1])
            timed = {label: [(hours[round], y) for round, y in series] for label, series in first.items()}
            title = f"{name.replace('_', ' ')} over virtual hours"
            figures.append(line_chart(title, timed, may_be_log=lower_is_better(name), across=IN_HOURS, say=axis_writer(name)))
    drawn = {each for prefix, name in evaluated for each in (prefix + name, name)}
    beside = [name for name in names if name in ON_PUBLIC]
    if len(beside) > 1:
        curves = {_marked(ON_PUBLIC[name], outside, name): _series(records, name) for name in beside}
        figures.append(line_chart("accuracy on public examples", curves))
        drawn |= set(beside)
    for name in names:
        constant = len({record.get(name) for record in records}) == 1 < len(records)
        if name not in drawn and not constant:
            title = _marked(name.replace("_", " "), outside, name)
            figures.append(line_chart(title, {name: _series(records, name)}, may_be_log=lower_is_better(name), say=axis_writer(name)))
    return figures


def _spreads(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the spread over clients of each metric of an evaluation, by the metric's full name.

    >>> _spreads({"test_loss": 0.5, "test_clients": {"loss": {"mean": 0.25}}})
    {'test_loss': {'mean': 0.25}}
    """
    by_prefix = {name.removesuffix(SPREAD): value for name, value in record.items() if isinstance(value, dict)}
    return {prefix + name: each for prefix, spread in by_prefix.items() for name, each in spread.items()}


def _together(final: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Put an evaluation of other models beside the last one of the global model.

    >>> _together({"test_clients": {"loss": {}}}, {"test_own_loss": 0.5, "test_clients": {"own_loss": {}}})
    {'test_clients': {'loss': {}, 'own_loss': {}}, 'test_own_loss': 0.5}
    """
    return final | {name: final.get(name, {}) | x if isinstance(x, dict) else x for name, x in others.items()}


def _new(evaluation: dict[str, Any], outside: Sequence[str]) -> str:
    """Write the evaluation on clients that never took part."""
    if not evaluation:
        return ""
    numbers = {_marked(key, outside): evaluation[key] for key in in_order(evaluation) if not isinstance(evaluation[key], dict)}
    spread = {parted(name)[1]: each for name, each in _spreads(evaluation).items()}
    return f"<h2>Clients that never took part</h2>{_pairs(numbers)}{_spread(spread)}"


def _marked(text: str, outside: Sequence[str], name: str | None = None) -> str:
    """Add `MARK` to `text` if the metric `name`, by default `text`, is outside the guarantee."""
    return f"{text} {MARK}" if (name or text) in outside else text


def _privacy(privacy: dict[str, Any]) -> str:
    """Write the section on privacy: epsilon by rounds, its terms, and the metrics outside the guarantee."""
    rounds = privacy.get("rounds", [])
    named = {"by RDP": privacy.get("epsilon_rdp", []), "by PLD": privacy.get("epsilon_pld", [])}
    curves = {name: list(zip(rounds, values, strict=True)) for name, values in named.items() if values and None not in values}
    last = {f"epsilon {name}": points[-1][1] for name, points in curves.items()}
    rest = {name: privacy[name] for name in ("delta", "noise_multiplier", "sampling", "relation", "note") if name in privacy}
    outside = ", ".join(name.replace("_", " ") for name in privacy["outside"])
    figure = f'<div class="figures">{line_chart("epsilon", curves)}</div>' if curves else ""
    return (
        f"<h2>Privacy</h2>{_pairs(last | rest)}<small>{MARK} Outside the guarantee, since computed from clients' data without noise: "
        f"{escape(outside)}. For a release, leave them out.</small>{figure}"
    )


def _baselines(baselines: dict[str, dict[str, Any]]) -> str:
    """Write a table with a row a baseline, and a column a metric of an evaluation."""
    numbers = [name for found in baselines.values() for name, x in found.items() if is_evaluation(name) and not isinstance(x, dict)]
    names = list(dict.fromkeys(numbers))
    rows = [[baseline.replace("_", " "), *(shown(name, found.get(name)) for name in names)] for baseline, found in baselines.items()]
    return html_table(rows, ["", *(name.replace("_", " ") for name in names)])


def _travelled(traffic: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the table of models' sizes and bytes sent."""
    sizes = traffic["client_parameters"]
    words = {"parameters of a client's model": ", ".join(f"{size:,}" for size in (sizes if isinstance(sizes, list) else [sizes]))}
    words["parameters of the global model"] = f"{traffic['global_parameters']:,}"
    words |= {
        f"bytes sent {way} clients": f"{traffic[name]:,.0f}"
        for way, name in (("by", "uplink_bytes"), ("to", "downlink_bytes"))
        if name in traffic
    }
    if "uplink_of_model" in traffic:
        words["a client's message, of its model's size"] = f"{100 * traffic['uplink_of_model']:.3g} %"
    return words


def _series(records: Sequence[dict[str, Any]], name: str) -> Series:
    """Return a metric's points (round, value / `scale_of`), with None where a record holds None."""
    there = [(record["round"], record[name]) for record in records if name in record]
    return [(x, None if y is None else y / scale_of(name)) for x, y in there]


def axis_writer(metric: str) -> Callable[[float], str]:
    """Return the function that writes values at a figure's axis, where values are divided by `scale_of(metric)`."""
    return lambda value: shown(metric, value * scale_of(metric))


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


def _pairs(values: dict[str, Any]) -> str:
    """Write a table of names and values."""
    rows = [[name.replace("_", " "), shown(name, value) if isinstance(value, float) else value] for name, value in values.items()]
    return html_table(rows)


def _duration(seconds: int | float) -> str:
    """Write seconds in hours, minutes and seconds.

    >>> _duration(3.21), _duration(192), _duration(4000)
    ('3.2 s', '3 min 12 s', '1 h 6 min')
    """
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{seconds:.1f} s"
