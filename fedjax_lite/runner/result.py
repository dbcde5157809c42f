"""What a run ends with."""

from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.base import State, Tree
from fedjax_lite.evaluation import Classification
from fedjax_lite.report import embedded, report
from fedjax_lite.runner.best import BestModel
from fedjax_lite.runner.records import Records

__all__ = ["Result"]


class Result(NamedTuple):
    """What a run ends with."""

    state: State
    params: Tree  # the global model
    history: Records  # one dict a round; evaluated rounds hold the test metrics too; None where nothing was counted
    status: str  # "finished", "converged", "interrupted" or "out_of_time"
    baselines: dict[str, dict[str, Any]]  # a baseline's name -> its evaluation after as many rounds
    clients: dict[str, np.ndarray]  # a column a name, a row a client, as in clients.csv; empty where the run is private or did not end
    further: dict[str, float | None]  # what was evaluated at the end alone: "test_finetuned_accuracy", "test_auc" and the like
    classification: Classification | None = None  # where it was asked for, and the run was not interrupted
    best: BestModel | None = None  # where keep_best asks for it
    summary: dict[str, Any] = {}  # as in summary.json

    def _repr_html_(self) -> str:
        """The report, for a notebook."""
        return embedded(report("run", self.summary, self.history, clients=self.clients)) if self.summary else ""
