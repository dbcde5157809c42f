"""The privacy that a run has spent."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from fedjax_lite.plots.style import COLUMN, blank, named, stroke, styled
from fedjax_lite.runner.files import read_whole
from fedjax_lite.runner.folder import SUMMARY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["epsilon"]

NAMES = {"epsilon_rdp": "by RDP", "epsilon_pld": "by PLD"}


@styled
def epsilon(folder: str | Path, width: float = COLUMN) -> "Figure":
    """Draw a private run's epsilon over its rounds, by each accountant.

    Args:
        folder: of a run.
        width: inches.

    Returns:
        A matplotlib figure, for `fl.plots.save`.

    Raises:
        ValueError: for a run that is not private or was not accounted for; without matplotlib.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "summary.json").write_text('{"privacy": {"delta": 1e-5, "rounds": [5, 10], "epsilon_rdp": [1.0, 1.5]}}')
    >>> epsilon(folder).axes[0].get_ylabel()
    'epsilon at delta 1e-05'
    """
    path = Path(folder).expanduser() / SUMMARY
    told = read_whole(path, json.loads, dict).get("privacy") or {}
    curves = {label: told[name] for name, label in NAMES.items() if told.get(name) and None not in told[name]}
    if not curves:
        raise ValueError(f"{folder} tells of no epsilon: it is not private, or no accountant was installed or covers it")
    figure, ((axes,),) = blank(width)
    for which, (label, values) in enumerate(curves.items()):
        axes.plot(told["rounds"], values, label=label, **stroke(which, len(values)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("round")
    axes.set_ylabel(f"epsilon at delta {told['delta']:.3g}")
    if len(curves) > 1:
        named(axes)
    return figure
