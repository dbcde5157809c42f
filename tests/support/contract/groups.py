"""Every algorithm, and the groups whose tests ask them."""

from contract.averages import COMPOSED, COMPRESSED, UPLINKS
from contract.distilled import DISTILLING
from contract.methods import ASYNCHRONOUS, OPTIMISATION
from contract.personal import PERSONAL

ALGORITHMS = COMPOSED | COMPRESSED | DISTILLING | OPTIMISATION | ASYNCHRONOUS | PERSONAL

# The groups whose tests ask them.
SERVERS = "median", "own weights", "adam server", "adaptive rate", "plateau"
AVERAGES = "fedavg", "fedavgm", "fedsgd"
DRAWING = "random at every place", "uplink with state"
DISTILLED = "distilled", "families that keep their models", "fd"
SPARSE = tuple(f"uplink {name}" for name in ("top_k", "random_k", "power_sgd"))
ROTATED = tuple(f"uplink {name}" for name in ("rotate", "drive", "eden"))
QUANTISED = tuple(f"uplink {name}" for name in UPLINKS if f"uplink {name}" not in SPARSE + ROTATED)
TWO_SIDED = "fedgkt", "fedgen"
# Compressors differ in one pure function of a message and its key, so what is costly to ask of a whole program is asked of one of them; and
# families are parts of the program of one.
ALIKE = [f"uplink {name}" for name in UPLINKS if name != "top_k"] + ["families that keep their models"]
# Methods of optimisation stand against their tables on every engine; one of each kind of composition is asked in every run.
ONE_OF_EACH_KIND = "scaffold", "fedbuff", "fedper"
BY_TABLE = [name for name in (*OPTIMISATION, *ASYNCHRONOUS, *PERSONAL) if name not in ONE_OF_EACH_KIND]
ALIKE += BY_TABLE
# What has a near relative that every run asks is asked in the deeper tests.
RELATED = (
    "weighted_median", "geometric_median", "fltrust",
    "multi_krum", "bulyan", "caf", "mda", "monna", "trimmed_mean", "meamed", "norm_bounding", "sign_majority", "rlr", "bucketing", "arc",
    "ddgauss", "dp_mean", "dp_ftrl", "work momentum", "work adam", "work measured", "work scheduled", "own weights", "adam server",
    "plateau", "fedavg", "fedsgd", "fedbuff", "fd", "families that keep their models", "fedgen", "fedgkt", "uplink with state",
    *(f"uplink {name}" for name in UPLINKS if name not in ("top_k", "qsgd", "drive")),
)  # fmt: skip
KINDS = [name for name in ALGORITHMS if name not in ALIKE]
SIX = "work sgd", "fedavgm", "random at every place", "uplink top_k", "distilled", "scaffold"  # what has most to do with each other
