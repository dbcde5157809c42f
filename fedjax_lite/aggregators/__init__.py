"""Aggregators: reduce the cohort's messages to an aggregate. `from_sum` and `from_stack` make an aggregator from a function."""

from fedjax_lite.aggregators.caf import caf
from fedjax_lite.aggregators.clipping import centered_clipping, norm_bounding
from fedjax_lite.aggregators.coordinatewise import meamed, median, trimmed_mean, weighted_median
from fedjax_lite.aggregators.distributed import ddgauss, skellam
from fedjax_lite.aggregators.flat import padded_size
from fedjax_lite.aggregators.ftrl import dp_ftrl
from fedjax_lite.aggregators.geometric import geometric_median
from fedjax_lite.aggregators.krum import bulyan, krum, multi_krum
from fedjax_lite.aggregators.lift import from_stack, from_sum, transformed
from fedjax_lite.aggregators.mda import mda
from fedjax_lite.aggregators.mean import mean, weighted_mean, weighted_sum
from fedjax_lite.aggregators.parts import by_part
from fedjax_lite.aggregators.pre_aggregation import arc, bucketing, nnm
from fedjax_lite.aggregators.private import dp_mean
from fedjax_lite.aggregators.secure import secure_mean
from fedjax_lite.aggregators.signs import rlr, sign_majority
from fedjax_lite.aggregators.trusted import fltrust, monna

__all__ = [
    "arc",
    "bucketing",
    "bulyan",
    "by_part",
    "caf",
    "centered_clipping",
    "ddgauss",
    "dp_ftrl",
    "dp_mean",
    "fltrust",
    "from_stack",
    "from_sum",
    "geometric_median",
    "krum",
    "mda",
    "meamed",
    "mean",
    "median",
    "monna",
    "multi_krum",
    "nnm",
    "norm_bounding",
    "padded_size",
    "rlr",
    "secure_mean",
    "sign_majority",
    "skellam",
    "transformed",
    "trimmed_mean",
    "weighted_mean",
    "weighted_median",
    "weighted_sum",
]
