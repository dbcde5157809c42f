"""What folders hold, as one kind of thing: a run with its settings, its seed and its curves; of a study each run of each cell."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.refuse import is_count
from fedjax_lite.runner.files import holds, read_or_empty
from fedjax_lite.runner.folder import CONFIG, SUMMARY
from fedjax_lite.runner.records import Records, read_records
from fedjax_lite.study.grid import cells_of
from fedjax_lite.study.results import VALUES, Study

__all__ = ["BITS", "Curve", "Entry", "entries_of", "flat", "kind_in", "study_in"]

BITS = "bits"  # the curve of bits that were sent so far, both ways, all clients together
SEED = "seed"
# Settings that say where a run is and how it was cut, and not what it computes.
FREE = ("name", SEED, "engine", "expected", "baselines", "grid", "code", "data.path", "run.evaluate_every", "run.checkpoint_every")


class Curve(NamedTuple):
    """A metric at the rounds that have it."""

    rounds: np.ndarray  # [points], rising
    values: np.ndarray  # [points], float64, NaN where nothing was counted


class Entry(NamedTuple):
    """One run: of a folder, or of a study's cell and seed."""

    name: str  # the folder; of a study also the cell
    settings: dict[str, Any]  # "client.batch_size" -> its value, without those of `FREE`
    seed: Any  # None where the folder does not tell
    status: str
    rounds: int  # how many there are
    wanted: int | None  # how many there were to be
    curves: dict[str, Curve]
    data: str  # a fingerprint of the training data
    outside: tuple[str, ...] = ()  # metrics that a private run's guarantee does not cover


def entries_of(folder: str | Path) -> list[Entry]:
    """Read a folder of a run, or of a study.

    Raises:
        ValueError: for a folder that holds neither, and for one without a finished round.
    """
    place = Path(folder).expanduser()
    return [_of_run(place, str(folder))] if kind_in(place) == "run" else _of_study(place, str(folder))


def kind_in(folder: Path) -> str:
    """Tell what a folder holds, "run" or "study".

    Raises:
        ValueError: for a folder that holds neither.
    """
    kind = holds(folder) if folder.is_dir() else ""
    if not kind:
        raise ValueError(f"{folder} holds no run or study: name the folder that fedjax-lite run or study has written")
    return kind


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted name; what has no names inside stays whole.

    >>> flat({"client": {"optimizer": {"name": "sgd"}, "sizes": [1, 2]}})
    {'client.optimizer.name': 'sgd', 'client.sizes': [1, 2]}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found


def _of_run(place: Path, name: str) -> Entry:
    """Read a run's folder."""
    summary, config = read_or_empty(place / SUMMARY, json.loads), read_or_empty(place / CONFIG, tomllib.loads)
    records = read_records(place)
    if not records:
        raise ValueError(f"{name} has no finished round (its status is {summary.get('status', 'unknown')}): run it first")
    seed = config.get(SEED, None if config else _key(summary))
    seed = seed if isinstance(seed, str | int | float | None) else str(seed)  # whatever it is, runs are found by it
    facts = summary.get("data")
    data = str(facts.get("sha256", "")) if isinstance(facts, Mapping) else ""
    status = str(summary.get("status", "unknown"))
    privacy = summary.get("privacy")
    outside = tuple(privacy.get("outside") or ()) if isinstance(privacy, Mapping) else ()
    return Entry(name, _settings(config), seed, status, len(records), _wanted(config), _curves(records), data, outside)


def _of_study(place: Path, name: str) -> list[Entry]:
    """Read a study's folder: each run of each cell, in the order of the table."""
    study = study_in(place)
    base = study.made.get("config", {}) | ({"data": source} if (source := study.made.get("source")) else {})
    data = json.dumps(study.made.get("data", {}), sort_keys=True)
    cells = cells_of([[dict(zip(axis.names, row, strict=True)) for row in axis.rows] for axis in study.axes])
    known, wanted, end = _settings(base), _wanted(base), max((points[-1] for points in study.rounds.values()), default=0)
    at = {metric: study.rounds.get(metric, (end,)) for metric in study.results}  # what is one value a run is known at its end
    found = []
    for place_of, (index, cell) in enumerate(zip(np.ndindex(*(len(axis.rows) for axis in study.axes)), cells, strict=True)):
        label = ", ".join(f"{key} {value}" for key, value in cell.items())
        of_cell = {f"{axis}.name" if f"{axis}.name" in known else axis: x for axis, x in cell.items()}  # as a run has a table's name
        settings = {key: x for key, x in known.items() if not any(key.startswith(f"{axis}.") for axis in cell)} | of_cell
        for k, seed in enumerate(study.seeds):
            curves = {
                metric: Curve(np.asarray(rounds), np.atleast_1d(study.results[metric][index][k]).astype(np.float64))
                for metric, rounds in at.items()
                if place_of not in study.lacking.get(metric, ())
            }
            last = max((int(curve.rounds[-1]) for curve in curves.values()), default=0)
            status = "finished" if curves else "not run"
            found.append(Entry(f"{name}: {label}" if label else name, settings, seed, status, last, wanted, curves, data))
    return found


def study_in(folder: Path) -> Study:
    """Load a folder's study.

    Raises:
        ValueError: for a folder without one, or with one that was stopped before it was written.
    """
    kind = holds(folder) if folder.is_dir() else ""
    if kind != "study":
        raise ValueError(
            f"{folder} holds {f'a {kind}, and no' if kind else 'no'} study: name the folder that fedjax-lite study has written"
        )
    if not (folder / VALUES).exists():
        raise ValueError(f"{folder} holds a study that was stopped: go on with fedjax-lite study and --resume")
    return Study.load(folder)


def _wanted(config: Mapping[str, Any]) -> int | None:
    """Return how many rounds settings ask for; None where they do not tell."""
    section = config.get("run")
    rounds = section.get("rounds") if isinstance(section, Mapping) else None
    return rounds if is_count(rounds, 1) else None


def _curves(records: Records) -> dict[str, Curve]:
    """Return the metrics of records as curves, with the bits sent so far among them."""
    names = dict.fromkeys(name for record in records for name, x in record.items() if not isinstance(x, dict) and name != "round")
    curves = {}
    for name in names:
        there = [(record["round"], record[name]) for record in records if name in record]
        values = np.array([np.nan if x is None else x for _, x in there], np.float64)
        curves[name] = Curve(np.array([round for round, _ in there]), values)
    sent = [sum(record.get(f"{way}link_bits") or 0.0 for way in ("up", "down")) for record in records]
    return curves | ({BITS: Curve(np.array([r["round"] for r in records]), np.cumsum(sent))} if any(sent) else {})


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that say what a run computes, by dotted name."""
    return {key: x for key, x in flat(config).items() if not any(key == free or key.startswith(f"{free}.") for free in FREE)}


def _key(summary: Mapping[str, Any]) -> str | None:
    """Return a run's key as its seed, of a run without settings."""
    return str(summary["key"]) if "key" in summary else None
