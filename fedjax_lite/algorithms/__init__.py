"""Named algorithms: complete compositions to read beside the paper."""

from fedjax_lite.algorithms.distillation.fd import fd
from fedjax_lite.algorithms.distillation.feddf import feddf
from fedjax_lite.algorithms.distillation.fedgen import Generator, fedgen, latent_generator
from fedjax_lite.algorithms.distillation.fedgkt import Split, fedgkt, split_loss
from fedjax_lite.algorithms.distillation.fedmd import dsfl, fedmd
from fedjax_lite.algorithms.optimisation.fedavg import fedavg, fedavgm, fedsgd

__all__ = [
    "Generator", "Split", "dsfl", "fd", "fedavg", "fedavgm", "feddf", "fedgen", "fedgkt", "fedmd", "fedsgd",
    "latent_generator", "split_loss",
]  # fmt: skip
