"""The HTML page of a run: its status, metrics, curves, clients, costs, settings, and facts about data, code and device."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fedjax_lite.metrics import HOURS, headline, is_evaluation, readable, shown
from fedjax_lite.report.classes import classes_body
from fedjax_lite.report.clients import clients_body
from fedjax_lite.report.curves import marked, run_curves
from fedjax_lite.report.document import Section, page
from fedjax_lite.report.evaluation import baselines_body, evaluation_body, numbers_of, together
from fedjax_lite.report.partition import participation_body, partition_body
from fedjax_lite.report.privacy import last_epsilons, privacy_body
from fedjax_lite.report.staleness import staleness_figure
from fedjax_lite.report.table import duration, pairs
from fedjax_lite.report.timing import rounds_a_second, time_body
from fedjax_lite.report.traffic import traffic_body

__all__ = ["report"]

MANY = 6  # more figures of what rounds report are folded


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
    final = together(summary["final"], summary.get("other_models") or {})
    outside, words = (summary.get("privacy") or {}).get("outside", []), summary.get("words", ())
    classification = summary.get("classification") or {}
    after = f"after round {final['round']}" if "round" in final else ""
    trained = {marked(key, outside): x for key, x in numbers_of(final).items() if not is_evaluation(key) and key != "round"}
    first, more = run_curves(records, outside)
    sections = [
        Section(
            f"Evaluation {after}", evaluation_body(final, outside, {key: x for key, x in classification.items() if is_evaluation(key)})
        ),
        Section("Curves", _figures(first if first else more)),
        Section("What rounds report", _figures(more) if first else "", folded=len(more) > MANY),
        Section(f"Classes {after}", classes_body(classification) if classification else ""),
        Section("Clients that never took part", _new(summary.get("new_clients") or {}, outside)),
        Section("Clients", clients_body(clients, words) if clients else ""),
        Section("Partition", partition_body(clients, words) if clients else ""),
        Section("Participation", participation_body(clients) if clients else ""),
        Section("Baselines after as many rounds", _beside(final, summary.get("baselines"))),
        Section("Models and traffic", traffic_body(summary["traffic"], records, outside) if summary.get("traffic") else ""),
        Section("Staleness", _figures([staleness_figure({"this run": summary["staleness"]})]) if summary.get("staleness") else ""),
        Section("Privacy", privacy_body(summary["privacy"]) if summary.get("privacy") else ""),
        Section("Time", time_body(summary["time"], summary["rounds"]) if summary.get("time") else ""),
        Section(f"Training in round {final.get('round')}", pairs(trained) if trained else "", folded=True),
        Section("Configuration", f"<pre>{escape(config)}</pre>" if config else "", folded=True),
        Section("Made with", _made_with(summary), folded=True),
    ]
    return page(name, _head(name, summary, final), sections)


def _head(name: str, summary: dict[str, Any], final: dict[str, Any]) -> str:
    """Write the heading, how the run ended, and the few numbers that a reader looks for first."""
    rounds = f"{summary['rounds']} round{'' if summary['rounds'] == 1 else 's'}"
    rounds += f" and {final[HOURS]:.3g} virtual hours" if final.get(HOURS) else ""
    text = f"<h1>{escape(name)}</h1>"
    text += (
        f'<p><span class="status">{escape(summary["status"].replace("_", " "))}</span> after {rounds}, {duration(summary["seconds"])}</p>'
    )
    text += f'<p class="error">{escape(summary["error"])}</p>' if summary.get("error") else ""
    return text + _tiles(summary, final)


def _tiles(summary: dict[str, Any], final: dict[str, Any]) -> str:
    """Write the headline metric, the bytes that clients sent, epsilon, and rounds a second, of these what is known."""
    evaluated = [key for key, x in final.items() if is_evaluation(key) and isinstance(x, float)]
    outside = (summary.get("privacy") or {}).get("outside", [])
    tiles = {marked(each, outside).replace("_", " "): shown(each, final[each]) for each in [headline(evaluated)]} if evaluated else {}
    if best := summary.get("best"):
        known = f"best {best['metric']}, round {best['round']}"
        tiles[marked(known, outside, best["metric"]).replace("_", " ")] = shown(best["metric"], best["value"])
    if "uplink_bytes" in (traffic := summary.get("traffic") or {}):
        tiles[marked("sent by clients", outside, "uplink_bits")] = readable(traffic["uplink_bytes"])
    tiles |= {key: f"{x:.3g}" for key, x in list(last_epsilons(summary["privacy"]).items())[-1:]} if summary.get("privacy") else {}
    if (time := summary.get("time")) and (speed := rounds_a_second(time)):
        tiles["rounds a second"] = speed
    written = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(x)}</dd></div>" for key, x in tiles.items())
    return f'<dl class="tiles">{written}</dl>' if tiles else ""


def _figures(figures: Sequence[str]) -> str:
    """Put figures beside each other; "" without any."""
    return f'<div class="figures">{"".join(figures)}</div>' if any(figures) else ""


def _new(evaluation: dict[str, Any], outside: Sequence[str]) -> str:
    """Write the evaluation on clients that never took part."""
    return evaluation_body(evaluation, outside) if evaluation else ""


def _beside(final: dict[str, Any], baselines: dict[str, dict[str, Any]] | None) -> str:
    """Write a run's last evaluation above those of its baselines."""
    return baselines_body({"this run": final} | baselines) if baselines else ""


def _made_with(summary: dict[str, Any]) -> str:
    """Write facts about data, code and device, with their fingerprints."""
    made = {f"{part} {key}": x for part in ("data", "test", "code", "device") for key, x in (summary.get(part) or {}).items()}
    return pairs(made | {"date": summary["date"]} if "date" in summary else made) if made else ""
