"""The rule by which a run stops early: a metric that no longer improves."""

import math
from typing import NamedTuple

from fedjax_lite.base import Number
from fedjax_lite.metrics import lower_is_better
from fedjax_lite.runner.records import Records

__all__ = ["Convergence"]


class Convergence(NamedTuple):
    """Stop once a metric has not improved by more than `tolerance` for `patience` evaluations in a row."""

    metric: str = "test_loss"  # any number in the records: "test_loss", "train_loss", "update_norm", "loss", "test_accuracy"
    tolerance: Number = 1e-4
    patience: int = 5
    best: str | None = None  # "min" or "max"; by default "min" for a loss, an error or a norm by its name, else "max"

    def reached(self, history: Records) -> bool:
        """Return whether the rule holds for `history`, records of evaluated rounds; a record without clients or metric is skipped.

        >>> Convergence("loss", tolerance=0.1, patience=2).reached([{"loss": 1.0}, {"loss": 0.95}, {"loss": 0.91}])
        True
        """
        sign = 1 if lower_is_better(self.metric, self.best) else -1
        best, waited = math.inf, 0
        for record in history:
            value = record.get(self.metric)
            if value is None or record.get("clients") == 0:
                continue
            improved = sign * value < best - self.tolerance
            best, waited = (sign * value, 0) if improved else (best, waited + 1)
        return waited >= self.patience
