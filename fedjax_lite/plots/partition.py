"""Who has how many examples of which class."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_lite.data.picture import MOST_CLIENTS, counts_of, evenly
from fedjax_lite.plots.style import COLUMN, blank, literal, styled
from fedjax_lite.report.colors import SHADES
from fedjax_lite.report.who import class_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["partition"]


@styled
def partition(data: Any, classes: int | None = None, width: float = COLUMN) -> "Figure":
    """Draw a population: a column a client, a row a class, darker for more examples, and the clients' sizes above.

    Args:
        data: a `FederatedData`, or a `Store`, with labels "y". Of more than 200 clients 200 are drawn, taken evenly.
        classes: their number; by default the highest label plus 1.
        width: inches.

    Returns:
        A matplotlib figure, for `fl.plots.save`. Shades go with the square root of the count.

    Raises:
        ValueError: without matplotlib.

    >>> import fedjax_lite as fl
    >>> figure = partition(fl.data.digits(fl.partition.shards(clients=5), seed=0).train)
    >>> figure.axes[1].images[0].get_array().shape  # [classes, clients]
    (10, 5)
    """
    from matplotlib.colors import LinearSegmentedColormap

    rows = evenly(data.population, MOST_CLIENTS)
    counts, sizes = counts_of(data, rows, classes), np.asarray(data.size)[rows]
    figure, grid = blank(width, rows=2, height=width * 0.8)
    (above,), (below,) = grid
    grid[0, 0].get_gridspec().set_height_ratios([1, 3])
    above.bar(range(len(rows)), sizes, color="#8c8c8c", width=0.9)
    above.set_ylabel("examples")
    above.tick_params(labelbottom=False)
    above.set_xlim(-0.5, len(rows) - 0.5)
    below.grid(False)
    below.set_xlabel("client" if data.population == len(rows) else f"client ({len(rows)} of {data.population})")
    if counts.shape[1]:
        below.imshow(np.sqrt(counts.T), cmap=LinearSegmentedColormap.from_list("shades", SHADES), aspect="auto", interpolation="nearest")
        below.set_ylabel("class")
        few = range(counts.shape[1]) if counts.shape[1] <= 12 else range(0, counts.shape[1], -(-counts.shape[1] // 12))
        below.set_yticks(few, [literal(class_name(label, data.words or ())) for label in few])
    else:
        below.set_visible(False)
    return figure
