"""A comparison as text for a terminal."""

from typing import Any

from fedjax_lite.comparison.comparing import Comparison
from fedjax_lite.metrics import lower_is_better, readable, shown
from fedjax_lite.report.table import in_columns

__all__ = ["columns_of", "comparison_text", "setting_rows"]


def comparison_text(found: Comparison) -> str:
    """Write the settings that differ, the table, and the notes."""
    settings = setting_rows(found)
    better = "lower is better" if lower_is_better(found.metric) else "higher is better"
    head, rows = columns_of(found)
    parts = [
        *(["settings that differ", *in_columns(settings), ""] if settings else []),
        f"{found.metric} ({better})",
        *in_columns([head, *rows]),
    ]
    return "\n".join([*parts, *([""] if found.notes else []), *(f"note: {note}" for note in found.notes)])


def setting_rows(found: Comparison) -> list[list[str]]:
    """Return a row a contender of the settings in which contenders differ, below their names; nothing where none differs."""
    if not found.settings:
        return []
    head = ["", *found.settings]
    return [head, *([one.name, *(_text(values[i]) for values in found.settings.values())] for i, one in enumerate(found.contenders))]


def columns_of(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the names of the table's columns, without those that no contender has, and its rows as texts."""
    metric, rows = found.metric, found.rows
    several, paired = any(row["seeds"] > 1 for row in rows), any(row["pairs"] for row in rows)
    columns: dict[str, list[str]] = {
        "": [row["contender"] for row in rows],
        "seeds": [str(row["seeds"]) for row in rows],
        "rounds": [str(row["rounds"]) for row in rows],
        "final (95 %)" if several else "final": [_with(metric, row, "final", "low", "high") for row in rows],
        "best": [_best(metric, row) for row in rows],
        f"rounds to {shown(metric, found.target)}": [_to(row, "rounds_to_target", ".4g") for row in rows],
        f"hours to {shown(metric, found.target)}": [_to(row, "hours_to_target", ".3g") for row in rows],
        "sent": ["-" if row["megabytes"] is None else readable(row["megabytes"] * 1e6) for row in rows],
        "hours": ["-" if row["hours"] is None else f"{row['hours']:.3g}" for row in rows],
        f"beside {rows[0]['contender']}{' (95 %)' if any(row['difference_low'] is not None for row in rows) else ''}": [
            _with(metric, row, "difference", "difference_low", "difference_high", "+") for row in rows
        ],
    }
    empty = {name for name, cells in columns.items() if set(cells) == {"-"}} | ({"seeds"} if not several else set())
    names = [name for name in columns if name not in empty or (paired and name.startswith("beside"))]
    return names, [list(cells) for cells in zip(*(columns[name] for name in names), strict=True)]


def _with(metric: str, row: dict[str, Any], value: str, low: str, high: str, sign: str = "") -> str:
    """Write a value with its interval."""
    if row[value] is None:
        return "-"
    form = f"{sign}.4g"
    text = shown(metric, row[value], form)
    return text if row[low] is None else f"{text} ({shown(metric, row[low], form)} to {shown(metric, row[high], form)})"


def _best(metric: str, row: dict[str, Any]) -> str:
    """Write a row's best value and its round."""
    return "-" if row["best"] is None else f"{shown(metric, row['best'])} at {row['best_round']:.4g}"


def _to(row: dict[str, Any], name: str, form: str) -> str:
    """Write the rounds or hours to a target; where not every seed reaches it, how many do."""
    if row[name] is not None:
        return format(row[name], form)
    return f"{row['reached']} of {row['seeds']} seeds" if row["reached"] and name == "rounds_to_target" else "-"


def _text(value: Any) -> str:
    """Write a setting; "-" where a contender has none."""
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
