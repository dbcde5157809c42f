"""Privacy in a run's report: epsilon by rounds, its terms, and the metrics outside the guarantee."""

from html import escape
from typing import Any

from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.curves import MARK
from fedjax_lite.report.table import pairs

__all__ = ["last_epsilons", "privacy_body"]


def privacy_body(privacy: dict[str, Any]) -> str:
    """Write the summary's entry "privacy".

    >>> "0.5" in privacy_body({"rounds": [1, 2], "epsilon_rdp": [0.25, 0.5], "delta": 1e-3, "outside": ["loss"]})
    True
    """
    curves = _curves(privacy)
    rest = {name: privacy[name] for name in ("delta", "noise_multiplier", "sampling", "relation", "note") if name in privacy}
    outside = ", ".join(name.replace("_", " ") for name in privacy["outside"])
    figure = f'<div class="figures">{line_chart("epsilon", curves)}</div>' if curves else ""
    return (
        f"{pairs(last_epsilons(privacy) | rest)}<small>{MARK} Outside the guarantee, since computed from clients' data without noise: "
        f"{escape(outside)}. For a release, leave them out.</small>{figure}"
    )


def last_epsilons(privacy: dict[str, Any]) -> dict[str, float]:
    """Return each accountant's epsilon after the last round that was asked for."""
    return {f"epsilon {name}": points[-1][1] for name, points in _curves(privacy).items()}


def _curves(privacy: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Return each accountant's points (round, epsilon)."""
    named = {"by RDP": privacy.get("epsilon_rdp", []), "by PLD": privacy.get("epsilon_pld", [])}
    return {name: list(zip(privacy.get("rounds", []), x, strict=True)) for name, x in named.items() if x and None not in x}
