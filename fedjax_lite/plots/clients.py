"""How a run's models do for each client, and how often each took part."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedjax_lite.metrics import EVALUATIONS, headline, is_evaluation, of_model
from fedjax_lite.plots.style import COLUMN, blank, labelled, literal, named, stroke, styled
from fedjax_lite.report.clients import MODELS
from fedjax_lite.runner.client_table import CLIENTS, read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["clients", "participation"]


@styled
def clients(folder: str | Path, metric: str | None = None, width: float = COLUMN) -> "Figure":
    """Draw a metric at every client of a run, sorted: of the global model, of the clients' own, and of the global one fine-tuned.

    Args:
        folder: of a run.
        metric: of an evaluation; by default its accuracy, or else its loss. The same of the other models is drawn beside.
        width: inches.

    Returns:
        A matplotlib figure, for `fl.plots.save`: the metric over the share of clients in %.

    Raises:
        ValueError: for a folder without a table of clients, as of a private run; for a metric that it does not have; without matplotlib.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "clients.csv").write_text("id,test_accuracy\\n0,0.5\\n1,1.0\\n2,0.0\\n")
    >>> clients(folder).axes[0].lines[0].get_ydata().tolist()
    [0.0, 0.5, 1.0]
    """
    columns = _columns(folder)
    known = [name for name, values in columns.items() if is_evaluation(name) and np.isfinite(values).any()]
    if not known:
        raise ValueError(f"{folder}: its clients have no metric: give the run a loss_fn")
    chosen = metric or headline(known)
    prefix, _, name = of_model(chosen)
    by_model = {label: columns[full] for own, label in MODELS.items() if (full := prefix + own + name) in known}
    if not by_model or chosen not in known:
        raise ValueError(f"{folder}: no metric {metric!r} of clients; there are {', '.join(known)}")
    figure, ((axes,),) = blank(width)
    for which, (label, values) in enumerate(by_model.items()):
        there = np.sort(values[np.isfinite(values)])
        share = 100 * np.arange(len(there)) / max(len(there) - 1, 1)
        axes.plot(share, there, label=label, **stroke(which, len(there)))
    axes.set_xlabel("share of clients in %")
    labelled(axes, name)
    axes.set_title(f"{literal(name.replace('_', ' '))} on {EVALUATIONS[prefix]}")
    if len(by_model) > 1:
        named(axes)
    return figure


@styled
def participation(folder: str | Path, width: float = COLUMN) -> "Figure":
    """Draw how many clients of a run were drawn how often.

    Args:
        folder: of a run.
        width: inches.

    Returns:
        A matplotlib figure, for `fl.plots.save`.

    Raises:
        ValueError: for a folder without a table of clients; without matplotlib.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "clients.csv").write_text("id,new,rounds\\n0,0,1\\n1,0,1\\n2,0,3\\n3,1,0\\n")
    >>> [int(bar.get_height()) for bar in participation(folder).axes[0].patches]
    [0, 2, 0, 1]
    """
    columns = _columns(folder)
    if "rounds" not in columns:
        raise ValueError(f"{folder}: its {CLIENTS} has no column rounds: it is of another program, or damaged")
    took = columns["rounds"] if "new" not in columns else columns["rounds"][columns["new"] == 0]  # the others never could
    counts = np.bincount(took.astype(int))
    figure, ((axes,),) = blank(width)
    bins = min(len(counts), 40)
    if bins == len(counts):
        axes.bar(range(len(counts)), counts, color="#8c8c8c", width=0.8)
    else:
        axes.hist(took, bins=bins, color="#8c8c8c")
    axes.set_xlabel("rounds that a client was drawn for")
    axes.set_ylabel("clients")
    return figure


def _columns(folder: str | Path) -> dict[str, np.ndarray]:
    """Read a run's table of clients."""
    columns = read_table(Path(folder).expanduser())
    if not columns:
        raise ValueError(f"{folder} has no {CLIENTS}: a run writes it at its end, unless it is private")
    return columns
