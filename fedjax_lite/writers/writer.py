"""The protocol of whoever records a run elsewhere: one method."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = ["Writer"]


@runtime_checkable
class Writer(Protocol):
    """Whoever records a run elsewhere: TensorBoard, Weights & Biases, MLflow, a file of your own."""

    def write(self, records: list[dict[str, Any]], folder: Path | None) -> None:
        """Record the rounds of a segment, when they are on disk.

        Args:
            records: a dict a round, as in metrics.jsonl: "round", its metrics, and in an evaluated round those of the evaluation; None is
                a metric without a number.
            folder: of the run, if it has one.
        """
