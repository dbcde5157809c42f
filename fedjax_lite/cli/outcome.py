"""What a command ends with: its exit status, a text for people, and the same as values for programs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["FAILED", "INTERRUPTED", "INVALID", "OUT_OF_TIME", "Outcome", "as_json"]

FAILED, INVALID, OUT_OF_TIME, INTERRUPTED = 1, 2, 3, 130  # exit statuses beside 0


class Outcome(NamedTuple):
    """What a command ends with."""

    text: str  # for people
    values: Mapping[str, Any]  # for programs
    status: int = 0  # the exit status


def as_json(outcome: Outcome) -> str:
    """Write an outcome as one JSON object: its exit status and its values.

    >>> as_json(Outcome("", {"loss": np.float32(0.5), "epsilon": float("inf"), "folder": Path("runs")}))
    '{"exit_status": 0, "loss": 0.5, "epsilon": null, "folder": "runs"}'
    """
    return json.dumps({"exit_status": outcome.status} | plain(outcome.values), allow_nan=False)


def plain(value: Any) -> Any:
    """Convert a value to what JSON has: arrays to lists, named tuples to objects, paths to text, what is not finite to null."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
