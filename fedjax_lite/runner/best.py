"""The best model of a run by a metric, kept beside the last one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from fedjax_lite.base import Tree
from fedjax_lite.metrics import lower_is_better
from fedjax_lite.runner.hosts import by_leader
from fedjax_lite.runner.model_file import load_params, save_params
from fedjax_lite.runner.records import Records

__all__ = ["Best", "BestModel"]

FOLDER, FILE = "best", "round_{}.safetensors"


class BestModel(NamedTuple):
    """The global model after the round that evaluated best, the first of equal ones."""

    metric: str
    round: int
    value: float
    params: Tree  # in host memory

    def facts(self) -> dict[str, str | int | float]:
        """Return the metric, the round and the value."""
        return {"metric": self.metric, "round": self.round, "value": self.value}


class Best:
    """The best model so far, in memory and in files of a run's folder.

    A file is written before the checkpoint of its round, and removed when a better one stands behind every checkpoint that is left: from
    whichever of them a run goes on, its best model up to there is on disk.

    Args:
        metric: of an evaluation.
        like: a tree of the global model's structure, which is not always that of the first parameters; its shapes are enough.
        folder: of the run, which may hold an earlier part of it; None keeps the model in memory alone.
        history: the records of that part.
    """

    def __init__(self, metric: str, like: Tree, folder: Path | None, history: Records) -> None:
        self._metric, self._folder, self.model = metric, folder and folder / FOLDER, None
        for round in filter(lambda round: round <= len(history), reversed(self._rounds())):
            value = history[round - 1].get(metric)
            if value is not None:
                self.model = BestModel(metric, round, value, self._read(round, like))
                break

    model: BestModel | None

    def look(self, record: dict, params: Callable[[], Tree]) -> None:
        """Keep the model if its record is better than all before; a record without the metric is none."""
        value, sign = record.get(self._metric), 1 if lower_is_better(self._metric) else -1
        if value is None or (self.model and sign * value >= sign * self.model.value):
            return
        self.model = BestModel(self._metric, record["round"], value, jax.device_get(params()))
        if self._folder:
            model = self.model
            by_leader(lambda: self._save(model.round, model.params))

    def tidy(self, oldest: int) -> None:
        """Remove the models that no run can go on from, whose oldest checkpoint is after the round `oldest`."""
        by_leader(lambda: self._remove([round for round in self._rounds() if round <= oldest][:-1]))

    def _save(self, round: int, params: Tree) -> None:
        """Write the model of a round, in place of later ones, of a run that went on after being killed."""
        assert self._folder
        self._folder.mkdir(exist_ok=True)
        self._remove([later for later in self._rounds() if later >= round])
        save_params(self._folder, params, FILE.format(round))

    def _read(self, round: int, like: Tree) -> Tree:
        """Read the model of a round."""
        try:
            return load_params(self._file(round), like)
        except ValueError as error:
            error.add_note(f"keep_best: remove {self._file(round)} to go on without the best model so far")
            raise

    def _remove(self, rounds: list[int]) -> None:
        """Remove the files of some rounds."""
        for round in rounds:
            self._file(round).unlink()

    def _rounds(self) -> list[int]:
        """Return the rounds whose models are on disk."""
        files = self._folder.glob(FILE.format("*")) if self._folder else ()
        return sorted(int(number) for file in files if (number := file.stem.rpartition("_")[2]).isdigit())

    def _file(self, round: int) -> Path:
        """Return the file of a round's model."""
        assert self._folder
        return self._folder / FILE.format(round)
