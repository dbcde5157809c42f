"""What a run sums up to: its status, its last evaluation, and what it was made with."""

from datetime import UTC, datetime
from typing import Any

from fedjax_lite.metrics import is_evaluation
from fedjax_lite.runner.environment import environment
from fedjax_lite.runner.records import Records

__all__ = ["NAMES", "summarized"]

# Entries that a run makes itself, some of them only where it has them: what reads a summary counts on their kinds.
NAMES = frozenset(
    "status rounds final seconds date code device data test key parts error privacy words staleness traffic time best baselines "
    "other_models new_clients classification".split()
)


def summarized(status: str, records: Records, seconds: float, **more: Any) -> dict[str, Any]:
    """Sum up a run: the dict in summary.json.

    Args:
        status: as of `fl.Result`, or "running", "failed", "diverged".
        records: a dict a round.
        seconds: that the run took.
        more: further entries.
    """
    evaluated = (record for record in reversed(records) if any(map(is_evaluation, record)))
    return {
        "status": status,
        "rounds": len(records),
        "final": next(evaluated, dict[str, Any]() if not records else records[-1]),
        "seconds": round(seconds, 3),
        **more,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **environment(),
    }
