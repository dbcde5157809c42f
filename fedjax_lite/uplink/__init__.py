"""Uplinks: optax transformations of one client's message, which return the message that the server decodes.

Compressors report the bits they send (`Sent`), and the round's metrics add them up; `local_gaussian` and `local_laplace` add a client's
own noise.
"""

from fedjax_lite.ledger import Sent, entropy_bits
from fedjax_lite.uplink.compressor import apart, compressor
from fedjax_lite.uplink.drive import drive, eden
from fedjax_lite.uplink.feedback import error_feedback
from fedjax_lite.uplink.local_dp import local_gaussian, local_laplace
from fedjax_lite.uplink.power_sgd import power_sgd
from fedjax_lite.uplink.quantise import qsgd, terngrad, uniform
from fedjax_lite.uplink.rotation import rotate
from fedjax_lite.uplink.sign import scaled_sign, sign
from fedjax_lite.uplink.sparse import random_k, top_k

__all__ = [
    "Sent",
    "apart",
    "compressor",
    "drive",
    "eden",
    "entropy_bits",
    "error_feedback",
    "local_gaussian",
    "local_laplace",
    "power_sgd",
    "qsgd",
    "random_k",
    "rotate",
    "scaled_sign",
    "sign",
    "terngrad",
    "top_k",
    "uniform",
]
