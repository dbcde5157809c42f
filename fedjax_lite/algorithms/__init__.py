"""Named algorithms: complete compositions to read beside the paper."""

from fedjax_lite.algorithms.fedavg import fedavg, fedavgm, fedsgd

__all__ = ["fedavg", "fedavgm", "fedsgd"]
