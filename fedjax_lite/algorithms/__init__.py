"""Named algorithms: complete compositions to read beside the paper."""

from fedjax_lite.algorithms.fd import fd
from fedjax_lite.algorithms.fedavg import fedavg, fedavgm, fedsgd
from fedjax_lite.algorithms.feddf import feddf
from fedjax_lite.algorithms.fedgen import Generator, fedgen, latent_generator
from fedjax_lite.algorithms.fedgkt import Split, fedgkt, split_loss
from fedjax_lite.algorithms.fedmd import dsfl, fedmd

__all__ = [
    "Generator", "Split", "dsfl", "fd", "fedavg", "fedavgm", "feddf", "fedgen", "fedgkt", "fedmd", "fedsgd",
    "latent_generator", "split_loss",
]  # fmt: skip
