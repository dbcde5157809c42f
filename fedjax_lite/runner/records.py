"""A run's records: a dict for each round, and a line for each dict in metrics.jsonl."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["METRICS", "Records", "lines_of", "plain", "read_records", "records_of"]

METRICS = "metrics.jsonl"
Records = list[dict[str, Any]]


def records_of(history: Mapping[str, np.ndarray], done: int) -> Records:
    """Turn a segment's metrics `[rounds]` into a record a round, numbered from `done` + 1; NaN and infinity become None.

    >>> records_of({"loss": np.array([0.5, np.nan])}, done=10)
    [{'round': 11, 'loss': 0.5}, {'round': 12, 'loss': None}]
    """
    rounds = len(next(iter(history.values())))
    return [{"round": done + i + 1} | {name: plain(float(values[i])) for name, values in history.items()} for i in range(rounds)]


def read_records(folder: Path, up_to: int | None = None) -> Records:
    """Read a folder's records, at most `up_to`; stop before the first line that is no record or was cut off by a crash."""
    records: Records = []
    path = folder / METRICS
    for line in path.read_bytes().splitlines(keepends=True)[:up_to] if path.exists() else []:
        try:
            record = json.loads(line.decode()) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or record.get("round") != len(records) + 1 or not all(map(_may_hold, record.values())):
            break
        records.append(record)
    return records


def _may_hold(value: Any) -> bool:
    """Return whether a record may hold `value`: a finite number, None, or a dict of spreads over clients."""
    if isinstance(value, dict):
        return all(isinstance(spread, dict) for spread in value.values())
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def plain(value: Any) -> Any:
    """Replace NaN and infinity in `value` by None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines_of(records: Records) -> str:
    """Return the text of `records`, a JSON line for each."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
