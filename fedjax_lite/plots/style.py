"""The look of figures for papers: sizes, fonts, strokes; and the files that they are saved in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from fedjax_lite.metrics import scale_of, shown
from fedjax_lite.refuse import is_number
from fedjax_lite.report.strokes import DIAMOND, DOWN, SQUARE, STROKES, UP
from fedjax_lite.runner.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLUMN", "blank", "labelled", "literal", "named", "save", "stroke", "styled"]

COLUMN, GOLDEN = 3.25, 0.7  # inches of a paper's column; the height of a figure over its width
MOST = 100  # inches of a figure's width
LETTER = 0.055  # inches of a letter of a legend
TYPES = (".pdf", ".png", ".svg")
MARKS = {"": "o", SQUARE: "s", UP: "^", DIAMOND: "D", DOWN: "v"}
STYLE: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "legend.fontsize": 7.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # whole fonts: journals refuse matplotlib's usual ones
    "svg.fonttype": "none",
    "svg.hashsalt": "fedjax_lite",
    "savefig.dpi": 300,
}


@contextmanager
def _style() -> Iterator[None]:
    """Let matplotlib draw in this style.

    Raises:
        ValueError: where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError('plots need matplotlib: pip install "fedjax_lite[plot]"') from None
    with matplotlib.rc_context(STYLE):
        yield


def styled(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Let a function draw in this style."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> "Figure":
        with _style():
            return draw(*args, **kwargs)

    return drawn


def blank(width: float, rows: int = 1, columns: int = 1, height: float | None = None) -> tuple["Figure", Any]:
    """Make a figure of so many inches' width, and its axes `[rows, columns]`; it belongs to no window.

    Raises:
        ValueError: for a width that no figure has.
    """
    from matplotlib.figure import Figure

    if not is_number(width) or not 1 <= width <= MOST:
        raise ValueError(f"width must be 1 to {MOST} inches, got {width!r}")

    figure = Figure(figsize=(width, height or width / columns * GOLDEN * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def stroke(which: int, points: int) -> dict[str, Any]:
    """Return the look of the curve of a number: as in reports its color, dashes and marks, at most some eight of them."""
    look = STROKES[which % len(STROKES)]
    dashes = [float(length) / 2 for length in look.dashes.split()]
    every = max(1, points // 8)
    return {
        "color": look.color,
        "linestyle": (0, dashes) if dashes else "-",
        "marker": MARKS[look.shape],
        "markerfacecolor": "white" if look.hollow else look.color,
        "markevery": (which * every // len(STROKES), every),
    }


def literal(text: str) -> str:
    """Return a text that matplotlib writes as it is, and does not take for mathematics.

    >>> literal("costs in $")
    'costs in \\\\$'
    """
    return text.replace("$", r"\$")


def named(axes: "Axes") -> None:
    """Add a legend of all curves, which leaves none out for its name: over them where it is small, else below, and the figure grows."""
    figure: Any = axes.figure
    lines, (width, height) = axes.get_lines(), figure.get_size_inches()
    names = [fill(str(line.get_label()), int(width / LETTER) - 8) for line in lines]
    legend = axes.legend(lines, names)
    legend.set_in_layout(False)  # it takes no room from the curves
    box = legend.get_window_extent()
    wide, high = box.width / figure.dpi, box.height / figure.dpi
    if wide > 0.6 * width or high > 0.4 * height:
        legend.remove()
        columns = max(1, int(width / wide))
        figure.set_size_inches(width, height + high * -(-len(lines) // columns) / len(lines))
        figure.legend(lines, names, loc="outside lower left", ncols=columns)


def labelled(axes: "Axes", metric: str) -> None:
    """Name the vertical axis after a metric, and write its values as reports do: bits as bytes."""
    axes.set_ylabel(literal(metric.replace("_", " ")))
    if scale_of(metric) != 1:
        axes.yaxis.set_major_formatter(lambda value, place: shown(metric, value))


def save(figure: "Figure", path: str | Path) -> Path:
    """Save a figure: a PDF or SVG with its fonts, or a PNG of 300 dots an inch; equal figures are equal files.

    Args:
        figure: of a function of `fl.plots`, or any of matplotlib.
        path: ends in .pdf, .png or .svg.

    Returns:
        The path.

    Raises:
        ValueError: for another ending; without matplotlib.

    >>> import tempfile
    >>> import fedjax_lite as fl
    >>> study = fl.study(lambda key, rate: {"loss": rate}, {"rate": [0.1, 0.2]}, seeds=1, progress=False)
    >>> save(fl.plots.heat_map(study, "loss"), Path(tempfile.mkdtemp()) / "loss.pdf").name
    'loss.pdf'
    """
    path = Path(path).expanduser()
    if path.suffix not in TYPES:
        raise ValueError(f"{path}: name a file that ends in {', '.join(TYPES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    with _style(), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=undated)
    return path
