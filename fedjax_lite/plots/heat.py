"""Heat maps of a study's cells, their mean over the seeds and its spread."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lite.metrics import headline, lower_is_better, scale_of
from fedjax_lite.plots.style import blank, literal, styled
from fedjax_lite.report.colors import SHADES
from fedjax_lite.report.facets import facets
from fedjax_lite.report.heat import written
from fedjax_lite.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat_map"]

CELL = 0.55, 0.32  # inches, width and height


@styled
def heat_map(study: Study, metric: str | None = None, width: float | None = None) -> "Figure":
    """Draw a study's cells: the mean over the seeds, and below it half the width of its 95 % interval; darker is better.

    The two longest axes are rows and columns, each combination of the others is a map of its own, all on one scale.

    Args:
        study: of `fl.study`, or `fl.Study.load(folder)`.
        metric: by default the accuracy of the evaluation, or else its loss, or the first.
        width: inches of a map; by default as its cells need.

    Returns:
        A matplotlib figure, for `fl.plots.save`.

    Raises:
        ValueError: for a metric that the study does not have; without matplotlib.

    >>> import fedjax_lite as fl
    >>> study = fl.study(lambda key, rate, n: {"loss": rate * n}, {"rate": [0.1, 0.2], "n": [1, 2, 3]}, seeds=2, progress=False)
    >>> figure = heat_map(study, "loss")
    >>> [text.get_text() for text in figure.axes[0].texts][:2]
    ['0.100', '0.200']
    """
    metric = metric or headline(study.results)
    table = study.table(metric)
    means = np.array([np.nan if row["mean"] is None else row["mean"] for row in table])
    halves = np.array([np.nan if row["low"] is None else (row["high"] - row["low"]) / 2 for row in table])
    span = (np.nanmin(means), np.nanmax(means)) if np.isfinite(means).any() else (0.0, 1.0)
    maps = list(facets({", ".join(axis.names): axis.labels for axis in study.axes}))
    down, along = maps[0].labels
    width = width or 1.0 + CELL[0] * len(along)
    figure, grid = blank(width, rows=len(maps), height=len(maps) * (0.75 + CELL[1] * len(down)))
    for (axes,), facet in zip(grid, maps, strict=True):
        _map(axes, metric, means[facet.cells], halves[facet.cells], span)
        axes.set_yticks(range(len(down)), map(literal, down))
        axes.set_xticks(range(len(along)), map(literal, along), rotation=0 if max(map(len, along)) < 8 else 30, ha="center")
        axes.set_ylabel(literal(facet.names[0]))
        axes.set_xlabel(literal(facet.names[1]) if facet is maps[-1] else "")
        axes.set_title(literal(facet.caption or metric.replace("_", " ")))
    return figure


def _map(axes: Any, metric: str, means: np.ndarray, halves: np.ndarray, span: tuple[float, float]) -> None:
    """Draw one map `[rows, columns]`."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shades", SHADES)
    shades = shades.reversed() if lower_is_better(metric) else shades
    axes.imshow(means, cmap=shades, vmin=span[0], vmax=span[1], aspect="auto")
    axes.grid(False)
    for (i, j), mean in np.ndenumerate(means):
        share = (mean - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
        dark = np.isfinite(mean) and (1 - share if lower_is_better(metric) else share) > 0.7
        finite = float(mean / scale_of(metric)) if np.isfinite(mean) else None
        spread = f"\n± {written(float(halves[i, j] / scale_of(metric)))}" if halves[i, j] > 0 else ""
        axes.text(j, i, written(finite) + spread, ha="center", va="center", color="white" if dark else "#222", fontsize=6)
