"""A study's results: plain arrays, tables made of them, and files to save them in."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.metrics import HOURS, lower_is_better
from fedjax_lite.report import embedded, study_report
from fedjax_lite.report.target import OF_HOURS, OF_ROUNDS
from fedjax_lite.runner.files import write
from fedjax_lite.study.grid import COLUMNS, Axis
from fedjax_lite.study.statistics import ranks, rounds_to, with_interval
from fedjax_lite.study.stored import fields_of, text_of

TABLE, VALUES, REPORT = "table.csv", "study.json", "report.html"


class Study(NamedTuple):
    """A study's results as plain data."""

    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    results: dict[str, np.ndarray]  # metric -> `[*axes, seeds]`, or `[*axes, seeds, rounds]` of a curve
    rounds: dict[str, tuple[int, ...]]  # curve -> the round of each of its points
    programs: int  # the number of compiled programs
    lacking: dict[str, tuple[int, ...]] = {}  # metric -> cells without that metric, by row of the table; NaN in results
    made: dict[str, Any] = {}  # date, seconds, and facts about data, code and device

    def __str__(self) -> str:
        """The cells by rank, for a person."""
        from fedjax_lite.study.printed import ranking  # which needs this class

        return ranking(self, {})

    def final(self, metric: str) -> np.ndarray:
        """A metric's last values, `[*axes, seeds]`."""
        return self.of(metric)[..., -1] if metric in self.rounds else self.of(metric)

    def of(self, metric: str) -> np.ndarray:
        """A metric's values, `[*axes, seeds]` or of a curve `[*axes, seeds, rounds]`; raises for an unknown name."""
        if metric not in self.results:
            raise ValueError(f"study: no metric {metric!r}; there are {', '.join(self.results)}")
        return self.results[metric]

    def timed(self, metric: str) -> bool:
        """Return whether a virtual hour is known for each point of a metric's curve."""
        return HOURS in self.rounds and metric in self.rounds and self.rounds[metric] == self.rounds[HOURS]

    def table(self, metric: str, target: float | None = None, best: str | None = None) -> list[dict[str, Any]]:
        """Make one row a cell, with statistics over the seeds of a metric's last value.

        Args:
            metric: one of `results`; of a curve the last value.
            target: for a curve, also the rounds until it is reached.
            best: "max" or "min"; by default "min" for a loss, an error, a norm or a cost by the words of its name, else "max".

        Returns:
            Dicts of the axes' values, "mean", "low" and "high" (the 95 % confidence interval by Student's t; None where fewer
            than two seeds are finite), "seeds" (how many are finite), "diverged" (how many are not), "rank" (1 is best, equal
            means share the lower number, cells with diverged seeds, or that lack the metric, come last) and, with a target,
            "rounds_to_target" (the mean over seeds of the first point's round that reaches it; None if a seed never does), "rounds_low" and
            "rounds_high" (its confidence interval); where runs have a virtual clock also "hours_to_target", "hours_low" and "hours_high".

        Raises:
            ValueError: no such metric, a target without a curve, another `best`.
        """
        values = self.final(metric)
        if target is not None and metric not in self.rounds:
            raise ValueError(f"study: {metric!r} is one value a run, not a curve: it has no rounds to a target")
        lower = lower_is_better(metric, best)
        rows = []
        for place, index in enumerate(np.ndindex(values.shape[:-1])):
            cell: dict[str, Any] = {}
            for axis, row in zip(self.axes, index, strict=True):
                cell |= zip(axis.names, axis.rows[row], strict=True)
            mean, low, high = with_interval(values[index])
            finite = int(np.isfinite(values[index]).sum())
            diverged = 0 if place in self.lacking.get(metric, ()) else len(self.seeds) - finite
            cell |= {"mean": mean, "low": low, "high": high, "seeds": finite, "diverged": diverged, "rank": 0}
            if target is not None:
                first = rounds_to(self.results[metric][index], self.rounds[metric], target, lower)
                cell |= zip(OF_ROUNDS, with_interval(() if first is None else first), strict=True)
                if self.timed(metric):
                    hour = rounds_to(self.results[metric][index], self.results[HOURS][index], target, lower)
                    cell |= zip(OF_HOURS, with_interval(() if hour is None else hour), strict=True)
            rows.append(cell)
        order = ranks([row["mean"] for row in rows], [len(self.seeds) - row["seeds"] for row in rows], lower)
        return [row | {"rank": rank} for row, rank in zip(rows, order, strict=True)]

    def save(
        self,
        folder: str | Path,
        targets: Mapping[str, float] | None = None,
        name: str = "study",
        config: str = "",
        best: Mapping[str, str] | None = None,
    ) -> Path:
        """Write `table.csv` (a row a metric and cell), `study.json` (everything, the table too) and `report.html`.

        Args:
            folder: made if it is not there; files of a study in it are replaced, each as a whole.
            targets: curve -> a value; the table then has the rounds until the curve reaches that value.
            name: the report's heading.
            config: settings to show in the report, as text.
            best: metric -> "max" or "min", where its name does not tell, as for `table`.

        Returns:
            The folder.

        Raises:
            ValueError: a target for no curve, another `best`.
        """
        targets, best = targets or {}, best or {}
        for metric in (*targets, *best):
            self.of(metric)
        tables = {metric: self.table(metric, targets.get(metric), best.get(metric)) for metric in self.results}
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / REPORT, self._page(name, tables, config, best))
        text = io.StringIO()
        names = [part for axis in self.axes for part in axis.names]
        absent = [*(() if targets else OF_ROUNDS), *(() if any(map(self.timed, targets)) else OF_HOURS)]
        columns = [name for name in COLUMNS[1:] if name not in absent]
        rows = csv.DictWriter(text, [COLUMNS[0], *names, *columns], lineterminator="\n")
        rows.writeheader()
        rows.writerows({"metric": metric} | row for metric, table in tables.items() for row in table)
        write(folder / TABLE, text.getvalue())
        write(folder / VALUES, text_of(self._asdict(), tables))
        return folder

    def _page(self, name: str, tables: Mapping[str, Any], config: str = "", best: Mapping[str, str] | None = None) -> str:
        """Write the report."""
        axes = {", ".join(axis.names): axis.labels for axis in self.axes}
        return study_report(name, axes, self.results, self.rounds, tables, config, best, self.made)

    def _repr_html_(self) -> str:
        """The report, for a notebook."""
        return embedded(self._page("study", {metric: self.table(metric) for metric in self.results}))

    @classmethod
    def load(cls, folder: str | Path) -> "Study":
        """Load the study that `save` wrote.

        Raises:
            OSError: if its file cannot be read.
            ValueError: if the file holds no whole study; names the file and the place.
        """
        return cls(**fields_of(Path(folder).expanduser() / VALUES))
