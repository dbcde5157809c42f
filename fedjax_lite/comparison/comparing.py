"""Compare finished runs: a row a contender, with paired intervals over the seeds that two contenders share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_lite.comparison.entries import Entry, entries_of
from fedjax_lite.comparison.groups import Contender, contenders_of, differing
from fedjax_lite.comparison.rows import mean_of, notes_of, row_of
from fedjax_lite.metrics import headline, lower_is_better
from fedjax_lite.report import embedded
from fedjax_lite.runner.files import write

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """Contenders beside each other, by one metric."""

    metric: str
    target: float  # that `rounds_to_target` is about
    contenders: tuple[Contender, ...]
    settings: dict[str, list[Any]]  # those that differ, each with a value a contender
    rows: list[dict[str, Any]]  # a contender each, as `compare` says
    notes: list[str]  # what is not alike: lengths, metrics, data, seeds

    def __str__(self) -> str:
        """Tables for a person."""
        from fedjax_lite.comparison.printed import comparison_text  # which needs this class

        return comparison_text(self)

    def _repr_html_(self) -> str:
        """The page, for a notebook."""
        from fedjax_lite.comparison.page import comparison_page

        return embedded(comparison_page(self))

    def save(self, path: str | Path) -> Path:
        """Write the page: tables and overlaid curves; the path."""
        from fedjax_lite.comparison.page import comparison_page

        path = Path(path).expanduser()
        if path.is_dir() or not path.name:
            raise ValueError(f"compare: {path} is a folder: name the page's file in it, such as comparison.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, comparison_page(self))
        return path


def compare(*folders: str | Path, metric: str | None = None, target: float | None = None) -> Comparison:
    """Compare the runs in some folders, and every cell of studies among them.

    Runs that differ in their seed alone are one contender. Differences are to the first contender, paired by seed: mean over the seeds s
    that both have of x_s - y_s, and its 95 % interval by the bootstrap, the percentiles of that mean over resampled seeds.

    Args:
        folders: of runs and studies, in the order of the rows.
        metric: what they are compared by; by default the accuracy of the evaluation, or else its loss.
        target: a value of the metric, for rounds and hours to it; by default the last value of the contender that ends worst.

    Returns:
        A `Comparison`. Its rows have "contender", "seeds", "status", "rounds", "final" with "low" and "high" (mean over the seeds at their
        last evaluation, and its 95 % interval by Student's t), "best" and "best_round", "rounds_to_target" (the mean over the seeds, None
        if one never reaches it) and "reached" (how many do), "hours_to_target", "megabytes" sent, "hours", "difference" with
        "difference_low", "difference_high" and "pairs" (how many seeds are common) at the last round that both have. None is what is not
        known.

    Raises:
        ValueError: for no folder, a folder without a run or study, a metric that no run has.

    Source: the percentile bootstrap of a paired mean, Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    >>> import tempfile, jax, optax, fedjax_lite as fl
    >>> data, folder = fl.data.digits(fl.partition.iid(4), seed=0), Path(tempfile.mkdtemp())
    >>> model = fl.models.logistic(10)
    >>> loss_fn = fl.models.supervised(model)
    >>> for rate in (0.1, 0.01):
    ...     algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=rate, population=4)
    ...     arguments = algorithm, data.train, model.init(jax.random.key(0), data.example), fl.sampling.everyone()
    ...     options = dict(rounds=2, key=jax.random.key(0), loss_fn=loss_fn, config={"rate": rate}, progress=False)
    ...     _ = fl.run(*arguments, out=folder / str(rate), **options)
    >>> found = compare(folder / "0.1", folder / "0.01", metric="train_loss")
    >>> found.settings, [row["rounds_to_target"] for row in found.rows]
    ({'rate': [0.1, 0.01]}, [2.0, 2.0])
    """
    if not folders:
        raise ValueError("compare: name at least one folder of a run or a study")
    entries = [entry for folder in folders for entry in entries_of(folder)]
    contenders = tuple(contenders_of(entries))
    metric = metric or _headline(entries)
    here = [one for one in contenders if metric in one.metrics()]
    if not here:
        known = dict.fromkeys(name for entry in entries for name in entry.curves)
        raise ValueError(f"compare: no run has the metric {metric!r}; there are {', '.join(known)}")
    lower = lower_is_better(metric)
    last = {one.name: mean_of(one.by_seed(metric, one.rounds).values()) for one in here}
    finite = [value for value in last.values() if value is not None]
    if target is None:
        target = (max if lower else min)(finite, default=float("nan"))
    rows = [row_of(one, metric, target, lower, contenders[0]) for one in contenders]
    return Comparison(metric, target, contenders, differing(contenders), rows, notes_of(contenders, metric))


def _headline(entries: Sequence[Entry]) -> str:
    """Choose the metric that most runs have as their headline."""
    chosen = [headline(entry.curves) for entry in entries if entry.curves]
    if not chosen:
        raise ValueError("compare: none of the runs has a metric")
    return max(dict.fromkeys(chosen), key=chosen.count)
