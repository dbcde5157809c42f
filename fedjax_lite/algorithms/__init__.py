"""Named algorithms: complete compositions to read beside the paper."""

from fedjax_lite.algorithms.asynchronous.fedasync import fedasync
from fedjax_lite.algorithms.asynchronous.fedat import fedat
from fedjax_lite.algorithms.asynchronous.fedbuff import fedbuff
from fedjax_lite.algorithms.decentralised.dpsgd import dpsgd
from fedjax_lite.algorithms.distillation.fd import fd
from fedjax_lite.algorithms.distillation.feddf import feddf
from fedjax_lite.algorithms.distillation.fedgen import Generator, fedgen, latent_generator
from fedjax_lite.algorithms.distillation.fedgkt import Split, fedgkt, split_loss
from fedjax_lite.algorithms.distillation.fedmd import dsfl, fedmd
from fedjax_lite.algorithms.optimisation.adaptive import scale_by_fedadagrad, scale_by_fedadam, scale_by_fedyogi
from fedjax_lite.algorithms.optimisation.agnostic_fedavg import agnostic_fedavg
from fedjax_lite.algorithms.optimisation.diloco import diloco
from fedjax_lite.algorithms.optimisation.fedadmm import fedadmm
from fedjax_lite.algorithms.optimisation.fedavg import fedavg, fedavgm, fedsgd
from fedjax_lite.algorithms.optimisation.fedcm import fedcm
from fedjax_lite.algorithms.optimisation.feddyn import feddyn
from fedjax_lite.algorithms.optimisation.fedexp import fedexp
from fedjax_lite.algorithms.optimisation.fedlc import fedlc
from fedjax_lite.algorithms.optimisation.fedlion import fedlion
from fedjax_lite.algorithms.optimisation.fednova import fednova
from fedjax_lite.algorithms.optimisation.fedopt import fedadagrad, fedadam, fedyogi
from fedjax_lite.algorithms.optimisation.fedprox import fedprox
from fedjax_lite.algorithms.optimisation.fedrs import fedrs
from fedjax_lite.algorithms.optimisation.fedsam import fedsam
from fedjax_lite.algorithms.optimisation.fedspeed import fedspeed
from fedjax_lite.algorithms.optimisation.mime import mime, mimelite
from fedjax_lite.algorithms.optimisation.moon import moon
from fedjax_lite.algorithms.optimisation.qfedavg import qfedavg
from fedjax_lite.algorithms.optimisation.scaffnew import scaffnew
from fedjax_lite.algorithms.optimisation.scaffold import scaffold
from fedjax_lite.algorithms.personal.apfl import apfl
from fedjax_lite.algorithms.personal.cfl import cfl
from fedjax_lite.algorithms.personal.ditto import ditto
from fedjax_lite.algorithms.personal.fedala import fedala
from fedjax_lite.algorithms.personal.fedproto import fedproto
from fedjax_lite.algorithms.personal.fedrod import fedrod
from fedjax_lite.algorithms.personal.ifca import ifca
from fedjax_lite.algorithms.personal.partial import fedbabu, fedbn, fedper, fedrep, lg_fedavg
from fedjax_lite.algorithms.personal.per_fedavg import per_fedavg
from fedjax_lite.algorithms.personal.pfedme import pfedme

__all__ = [
    "Generator", "Split", "agnostic_fedavg", "apfl", "cfl", "diloco", "ditto", "dpsgd", "dsfl", "fd", "fedadagrad", "fedadam", "fedadmm",
    "fedala", "fedasync", "fedat", "fedavg", "fedavgm", "fedbabu", "fedbn", "fedbuff", "fedcm", "feddf", "feddyn", "fedexp", "fedgen",
    "fedgkt", "fedlc", "fedlion", "fedmd", "fednova", "fedper", "fedproto", "fedprox", "fedrep", "fedrod", "fedrs", "fedsam", "fedsgd",
    "fedspeed", "fedyogi", "ifca", "latent_generator", "lg_fedavg", "mime", "mimelite", "moon", "per_fedavg", "pfedme", "qfedavg",
    "scaffnew", "scaffold", "scale_by_fedadagrad", "scale_by_fedadam", "scale_by_fedyogi", "split_loss",
]  # fmt: skip
