"""Named algorithms: complete compositions to read beside the paper."""

from fedjax_lite.algorithms.decentralised.dpsgd import dpsgd
from fedjax_lite.algorithms.distillation.fd import fd
from fedjax_lite.algorithms.distillation.feddf import feddf
from fedjax_lite.algorithms.distillation.fedgen import Generator, fedgen, latent_generator
from fedjax_lite.algorithms.distillation.fedgkt import Split, fedgkt, split_loss
from fedjax_lite.algorithms.distillation.fedmd import dsfl, fedmd
from fedjax_lite.algorithms.optimisation.adaptive import scale_by_fedadagrad, scale_by_fedadam, scale_by_fedyogi
from fedjax_lite.algorithms.optimisation.diloco import diloco
from fedjax_lite.algorithms.optimisation.fedavg import fedavg, fedavgm, fedsgd
from fedjax_lite.algorithms.optimisation.feddyn import feddyn
from fedjax_lite.algorithms.optimisation.fednova import fednova
from fedjax_lite.algorithms.optimisation.fedopt import fedadagrad, fedadam, fedyogi
from fedjax_lite.algorithms.optimisation.fedprox import fedprox
from fedjax_lite.algorithms.optimisation.scaffold import scaffold

__all__ = [
    "Generator", "Split", "diloco", "dpsgd", "dsfl", "fd", "fedadagrad", "fedadam", "fedavg", "fedavgm", "feddf", "feddyn", "fedgen",
    "fedgkt", "fedmd", "fednova", "fedprox", "fedsgd", "fedyogi", "latent_generator", "scaffold", "scale_by_fedadagrad",
    "scale_by_fedadam", "scale_by_fedyogi", "split_loss",
]  # fmt: skip
