"""Writers: who records a run elsewhere, beside metrics.jsonl. A writer is whatever has the method `write(records, folder)`."""

from fedjax_lite.writers.tensorboard import tensorboard
from fedjax_lite.writers.writer import Writer

__all__ = ["Writer", "tensorboard"]
