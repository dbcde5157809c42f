"""The page: what was run, what came out, curves over rounds, what it depends on."""

import json
from html import escape
from pathlib import Path
from typing import Any

from fedjax_lite.report.chart import line_chart

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 980px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 2em; border-bottom: 1px solid #ddd }
.figures { display: flex; flex-wrap: wrap; gap: 1em } figure { margin: 0; flex: 1 1 440px; max-width: 480px }
figcaption { font-weight: 600 } figcaption small { font-weight: 400; color: #555 }
svg { width: 100%; font-size: 11px; fill: #444 } .grid { stroke: #e4e4e4 }
table { border-collapse: collapse } td, th { padding: 2px 14px 2px 0; text-align: left; vertical-align: top; font-variant-numeric: tabular-nums }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto } .status { font-weight: 600 }
"""


def write_report(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write report.html from a folder's summary, its resolved configuration if there is one, and the records."""
    summary = json.loads((folder / "summary.json").read_text())
    config = folder / "config.toml"
    sections = [
        f"<h1>{escape(folder.name)}</h1>",
        f'<p><span class="status">{escape(summary["status"])}</span> after {summary["rounds"]} rounds, {summary["seconds"]} s. '
        f"{escape(summary.get('error', ''))}</p>",
        "<h2>Result</h2>" + _table(_flat(summary["final"])),
        '<h2>Curves</h2><div class="figures">' + "".join(_figures(records)) + "</div>",
        f"<h2>Configuration</h2><pre>{escape(config.read_text())}</pre>" if config.exists() else "",
        "<h2>Made with</h2>" + _table(_flat({name: summary[name] for name in ("data", "test", "code", "device") if summary.get(name)})),
    ]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(folder.name)}</title><style>{STYLE}</style>{"".join(sections)}</html>'
    temporary = folder / "report.html.partial"
    temporary.write_text(page)
    temporary.replace(folder / "report.html")


def _figures(records: list[dict[str, Any]]) -> list[str]:
    """A figure a metric: its value in local training and on held-out data together, with the spread over clients."""
    names = list(dict.fromkeys(name for record in records for name, value in record.items() if isinstance(value, float) and name != "round"))
    prefix = next((prefix for prefix in ("test_", "train_") if any(name.startswith(prefix) for name in names)), None)
    evaluated = [name.removeprefix(prefix) for name in names if prefix and name.startswith(prefix)]
    figures = []
    for name in evaluated:
        local = {f"{name} in local training": _curve(records, name)} if name in names else {}
        spread = [(record["round"], record.get(f"{prefix}clients", {}).get(name, {}).get("deciles")) for record in records]
        band = [(x, deciles[0], deciles[-1]) for x, deciles in spread if deciles]
        figures.append(line_chart(f"{prefix}{name}", {f"{prefix}{name}": _curve(records, f"{prefix}{name}"), **local}, band))
    for name in names:
        constant = len({record.get(name) for record in records}) == 1
        if name not in evaluated and not (prefix and name.startswith(prefix)) and not constant:
            figures.append(line_chart(name.replace("_", " "), {name: _curve(records, name)}))
    return figures


def _curve(records: list[dict[str, Any]], name: str) -> list[tuple[float, float | None]]:
    return [(record["round"], record[name]) for record in records if name in record]


def _flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{path}{key} ") if isinstance(value, dict) else {f"{path}{key}".replace("_", " "): value}
    return flat


def _table(rows: dict[str, Any]) -> str:
    def text(value):
        if isinstance(value, list):
            return ", ".join(text(x) for x in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return "<table>" + "".join(f"<tr><td>{escape(name)}</td><td>{escape(text(value))}</td></tr>" for name, value in rows.items()) + "</table>"
