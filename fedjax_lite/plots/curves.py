"""Curves of runs and studies over rounds, bytes or virtual hours, with bands over the seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

from fedjax_lite.comparison import compare
from fedjax_lite.comparison.lines import AGAINST, line_of
from fedjax_lite.metrics import lower_is_better
from fedjax_lite.plots.style import COLUMN, blank, labelled, stroke, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves"]


@styled
def curves(*folders: str | Path, metric: str | None = None, against: str = "rounds", width: float = COLUMN) -> "Figure":
    """Draw a metric of finished runs and studies over each other: the mean over the seeds, shaded from the lowest to the highest.

    Args:
        folders: of runs and studies; runs that differ in their seed alone are one curve, as in `fl.compare`.
        metric: by default the accuracy of the evaluation, or else its loss.
        against: "rounds", "bits" (megabytes sent until then) or "hours" (virtual).
        width: inches; 3.25 is a column of most papers.

    Returns:
        A matplotlib figure, for `fl.plots.save`.

    Raises:
        ValueError: as `fl.compare`; for another `against`, and where no run knows its bits or hours; without matplotlib.

    >>> import tempfile, jax, optax, fedjax_lite as fl
    >>> data, out = fl.data.digits(fl.partition.iid(4), seed=0), Path(tempfile.mkdtemp()) / "run"
    >>> loss_fn = fl.models.supervised(model := fl.models.logistic(10))
    >>> algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=0.1, population=4)
    >>> arguments = algorithm, data.train, model.init(jax.random.key(0), data.example), fl.sampling.everyone()
    >>> options = dict(rounds=2, evaluate_every=1, key=jax.random.key(0), loss_fn=loss_fn, out=out, progress=False)
    >>> _ = fl.run(*arguments, **options)
    >>> figure = fl.plots.curves(out, metric="train_loss")
    >>> figure.axes[0].lines[0].get_xdata().tolist(), figure.axes[0].get_xlabel()
    ([1, 2], 'round')
    """
    if against not in AGAINST:
        raise ValueError(f"against must be one of {', '.join(AGAINST)}, got {against!r}")
    found = compare(*folders, metric=metric)
    lines = {one.name: line for one in found.contenders if (line := line_of(one, found.metric, AGAINST[against])) is not None}
    if not lines:
        raise ValueError(f"against={against!r}: none of the runs knows its {against} where it has {found.metric}: take rounds")
    figure, ((axes,),) = blank(width)
    for which, (name, (curve, low, high)) in enumerate(lines.items()):
        look = stroke(which, len(curve.rounds))
        axes.plot(curve.rounds, curve.values, label=name, **look)
        axes.fill_between(curve.rounds, low, high, color=look["color"], alpha=0.15, linewidth=0)
    positive = [value for curve, _, _ in lines.values() for value in curve.values.tolist() if value > 0]
    if lower_is_better(found.metric) and positive and max(positive) / min(positive) > 1000:
        axes.set_yscale("log")
    axes.set_xlabel(AGAINST[against])
    labelled(axes, found.metric)
    if len(lines) > 1:
        axes.legend()
    return figure
