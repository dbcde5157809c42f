"""Whether a run's numbers, or a study's, lie inside the bands that its configuration states."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.comparison.bands import EXAMPLE, Band, bands_of
from fedjax_lite.comparison.entries import kind_in, study_in
from fedjax_lite.metrics import shown
from fedjax_lite.runner.files import read_whole
from fedjax_lite.runner.folder import CONFIG, SUMMARY
from fedjax_lite.runner.records import read_records
from fedjax_lite.study.results import Study

__all__ = ["Checked", "check"]


class Checked(NamedTuple):
    """Bands, and whether what was measured lies inside."""

    rows: list[dict[str, Any]]  # a band each, of a study a band and cell: "metric", "round", "cell", "low", "high", "found", "holds"

    @property
    def ok(self) -> bool:
        """Whether all hold."""
        return all(row["holds"] for row in self.rows)

    def __str__(self) -> str:
        """A line a band."""
        return "\n".join(map(_line, self.rows))


def check(folder: str | Path) -> Checked:
    """Compare a finished run, or study, with the table [expected] of its configuration.

    Of a study each cell's mean over the seeds is compared. Where there are cells = [{ of = { aggregator = "mean" }, test_loss = [0, 2] }],
    these alone count in a study, and the other bands in a run.

    Args:
        folder: of a run or a study.

    Returns:
        A `Checked`: `ok`, and a row a band. What was not measured lies in no band.

    Raises:
        ValueError: for a folder without a run or study, a run that has not ended, and settings without [expected].

    >>> import tempfile, jax, optax, fedjax_lite as fl
    >>> data, folder = fl.data.digits(fl.partition.iid(4), seed=0), Path(tempfile.mkdtemp()) / "run"
    >>> loss_fn = fl.models.supervised(model := fl.models.logistic(10))
    >>> algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=0.1, population=4)
    >>> arguments = algorithm, data.train, model.init(jax.random.key(0), data.example), fl.sampling.everyone()
    >>> options = dict(rounds=1, key=jax.random.key(0), loss_fn=loss_fn, out=folder, progress=False)
    >>> _ = fl.run(*arguments, **options, config={"expected": {"train_loss": [1.0, 2.5], "train_accuracy": [0.99, 1.0]}})
    >>> [row["holds"] for row in fl.check(folder).rows]
    [True, False]
    """
    place = Path(folder).expanduser()
    if kind_in(place) == "study":
        study = study_in(place)
        bands = _bands(study.made.get("expected"), folder)
        of_cells = [band for band in bands if band.of] or bands
        return Checked([row for band in of_cells for row in _in_study(study, band)])
    config, summary = read_whole(place / CONFIG, tomllib.loads, dict), read_whole(place / SUMMARY, json.loads, dict)
    bands = [band for band in _bands(config.get("expected"), folder) if not band.of]
    if (status := summary.get("status", "unknown")) not in ("finished", "converged"):
        raise ValueError(f"{folder} has not ended (its status is {status}): resume it, then check it")
    records = {record["round"]: record for record in read_records(place)}
    beside = {name: x for part in ("other_models", "new_clients", "classification") for name, x in (summary.get(part) or {}).items()}
    final = (summary.get("final") or {}) | beside
    return Checked([_row(band, None, (final if band.round is None else records.get(band.round, {})).get(band.metric)) for band in bands])


def _bands(expected: Any, folder: str | Path) -> list[Band]:
    """Return the bands of a folder's settings."""
    if expected is None:
        raise ValueError(f"{folder}: its configuration has no table [expected]: add one with bands, such as {EXAMPLE}, and run it")
    return bands_of(expected)


def _in_study(study: Study, band: Band) -> list[dict[str, Any]]:
    """Return a row a cell that a band is of."""
    axes = {name for axis in study.axes for name in axis.names}
    if unknown := [name for name, _ in band.of if name not in axes]:
        raise ValueError(f"expected.cells: the study has no axis {unknown[0]!r}; there are {', '.join(sorted(axes))}")
    if band.metric not in study.results:
        return [_row(band, None, None)]
    values, curve = study.of(band.metric), band.metric in study.rounds
    if band.round is not None and (not curve or band.round not in study.rounds[band.metric]):
        return [_row(band, None, None)]
    point = study.rounds[band.metric].index(band.round) if band.round is not None else -1
    means = (values[..., point] if curve else values).astype(np.float64).mean(-1)
    rows = []
    for index in np.ndindex(means.shape):
        parts = zip(study.axes, index, strict=True)
        cell = {name: value for axis, i in parts for name, value in zip(axis.names, axis.rows[i], strict=True)}
        if all(str(cell[name]) == str(value) for name, value in band.of):
            rows.append(_row(band, cell, float(means[index])))
    if not rows:
        raise ValueError(f"expected.cells: the study has no cell of {dict(band.of)}")
    return rows


def _row(band: Band, cell: dict[str, Any] | None, found: Any) -> dict[str, Any]:
    """Return a row: a band, what was found, and whether that lies inside."""
    number = float(found) if isinstance(found, int | float) and np.isfinite(found) else None
    holds = number is not None and band.low <= number <= band.high
    facts = {"metric": band.metric, "round": band.round, "cell": cell, "low": band.low, "high": band.high}
    return facts | {"found": number, "holds": holds}


def _line(row: dict[str, Any]) -> str:
    """Write a row."""
    metric = row["metric"]
    where = (f" at round {row['round']}" if row["round"] else "") + (f" of {_cell(row['cell'])}" if row["cell"] else "")
    band = f"[{shown(metric, row['low'])}, {shown(metric, row['high'])}]"
    if row["found"] is None:
        return f"OUTSIDE  {metric}{where} was not measured; expected in {band}"
    return f"{'inside ' if row['holds'] else 'OUTSIDE'}  {metric}{where} is {shown(metric, row['found'])}, expected in {band}"


def _cell(cell: Mapping[str, Any]) -> str:
    """Write a cell's values."""
    return ", ".join(f"{name} {value}" for name, value in cell.items())
