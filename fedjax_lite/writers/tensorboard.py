"""TensorBoard: each metric as a scalar over rounds, in files of events."""

import weakref
from pathlib import Path
from typing import Any

from fedjax_lite.writers.writer import Writer

__all__ = ["tensorboard"]

FOLDER = "tensorboard"


def tensorboard(path: str | Path | None = None) -> Writer:
    """Write each metric as a scalar over rounds, for `tensorboard --logdir`; the metrics' spread over clients too.

    A run that was killed and goes on purges the rounds that it runs again.

    Args:
        path: the folder of the events; by default "tensorboard" in the run's folder.

    Returns:
        A writer for `fl.run(writers=[...])`; in a configuration `[run] writers = ["tensorboard"]`.

    Raises:
        ValueError: without tensorboardX, and when it is to write for a run without a folder and has no path.

    >>> import tempfile
    >>> import fedjax_lite as fl
    >>> folder = Path(tempfile.mkdtemp())
    >>> fl.writers.tensorboard().write([{"round": 1, "loss": 0.5}], folder)
    >>> [path.name for path in folder.iterdir()]
    ['tensorboard']
    """
    try:
        import tensorboardX
    except ImportError:
        raise ValueError('tensorboard needs tensorboardX: pip install "fedjax_lite[tensorboard]"') from None
    return _TensorBoard(None if path is None else Path(path).expanduser(), tensorboardX.SummaryWriter)


class _TensorBoard:
    """Writes scalars to one folder, which is opened at the first round."""

    def __init__(self, path: Path | None, make: Any) -> None:
        self._path, self._make, self._open = path, make, dict[Path, Any]()

    def write(self, records: list[dict[str, Any]], folder: Path | None) -> None:
        """Record the rounds of a segment."""
        path = self._path or (folder and folder / FOLDER)
        if path is None:
            raise ValueError("tensorboard: the run has no folder: give out to fl.run, or path to fl.writers.tensorboard")
        if path not in self._open:
            self._open[path] = self._make(str(path), purge_step=records[0]["round"])
            weakref.finalize(self, self._open[path].close)
        for record in records:
            for name, value in _scalars(record):
                self._open[path].add_scalar(name, value, record["round"])
        self._open[path].flush()


def _scalars(record: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a record by name, those of inner dicts by "outer/inner".

    >>> _scalars({"round": 1, "loss": 0.5, "norm": None, "test_clients": {"loss": {"mean": 0.25, "deciles": [1.0, 2.0]}}})
    [('loss', 0.5), ('test_clients/loss/mean', 0.25)]
    """
    found = []
    for name, value in record.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (prefix or name != "round"):
            found.append((f"{prefix}{name}", float(value)))
    return found
