"""What a federated run is measured against: the same local training on all examples together, and of every client alone."""

from fedjax_lite.baselines.centralised import centralised
from fedjax_lite.baselines.local_only import local_only

__all__ = ["centralised", "local_only"]
