"""Curves of runs and studies over rounds, bytes or virtual hours, with bands over the seeds."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedjax_lite.comparison import Comparison, compare
from fedjax_lite.comparison.lines import AGAINST, line_of
from fedjax_lite.metrics import lower_is_better
from fedjax_lite.plots.style import COLUMN, blank, labelled, literal, named, stroke, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves"]

FEW = 4  # settings that a label tells


@styled
def curves(
    *folders: str | Path, metric: str | None = None, against: str = "rounds", labels: Sequence[str] = (), width: float = COLUMN
) -> "Figure":
    """Draw a metric of finished runs and studies over each other: the mean over the seeds, shaded from the lowest to the highest.

    Args:
        folders: of runs and studies; runs that differ in their seed alone are one curve, as in `fl.compare`.
        metric: by default the accuracy of the evaluation, or else its loss.
        against: "rounds", "bits" (megabytes sent until then) or "hours" (virtual).
        labels: of the curves in their order, in which $...$ is mathematics; by default the settings in which they differ, if these are
            few, or else the folders.
        width: inches; 3.25 is a column of most papers.

    Returns:
        A matplotlib figure, for `fl.plots.save`.

    Raises:
        ValueError: as `fl.compare`; for another `against`, where no run knows its bits or hours, for another number of labels than curves;
            without matplotlib.

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
    lines = {i: line for i, one in enumerate(found.contenders) if (line := line_of(one, found.metric, AGAINST[against])) is not None}
    if not lines:
        raise ValueError(f"against={against!r}: none of the runs knows its {against} where it has {found.metric}: take rounds")
    if labels and len(labels) != len(lines):
        raise ValueError(
            f"labels: {len(labels)} for {len(lines)} curves: give one each, in the order of {', '.join(_labels(found, lines))}"
        )
    figure, ((axes,),) = blank(width)
    for which, (name, (curve, low, high)) in enumerate(zip(labels or map(literal, _labels(found, lines)), lines.values(), strict=True)):
        look = stroke(which, len(curve.rounds))
        axes.plot(curve.rounds, curve.values, label=name, **look)
        axes.fill_between(curve.rounds, low, high, color=look["color"], alpha=0.15, linewidth=0)
    positive = [value for curve, _, _ in lines.values() for value in curve.values.tolist() if value > 0]
    if lower_is_better(found.metric) and positive and max(positive) / min(positive) > 1000:
        axes.set_yscale("log")
    axes.set_xlabel(AGAINST[against])
    labelled(axes, found.metric)
    if len(lines) > 1:
        named(axes)
    return figure


def _labels(found: Comparison, places: Collection[int]) -> list[str]:
    """Return a label for each contender at some places: the settings that differ, where there are at most `FEW`."""
    names = [found.contenders[i].name for i in places]
    if not 1 <= len(found.settings) <= FEW:
        return names
    short = {name: name.removesuffix(".name").rpartition(".")[2].replace("_", " ") for name in found.settings}
    labels = [", ".join(f"{short[name]} {values[i]}" for name, values in found.settings.items() if values[i] is not None) for i in places]
    return labels if len(set(labels)) == len(labels) and all(labels) else names
