"""Compression of one client's message on its way to the server: optax transformations that return what the server decodes.

Each reports the bits it sends (`Sent`), and the round's metrics add them up.
"""

from fedjax_lite.uplink.drive import drive, eden
from fedjax_lite.uplink.feedback import error_feedback
from fedjax_lite.uplink.ledger import Sent, compressor, entropy_bits
from fedjax_lite.uplink.power_sgd import power_sgd
from fedjax_lite.uplink.quantise import qsgd, terngrad, uniform
from fedjax_lite.uplink.rotation import rotate
from fedjax_lite.uplink.sign import scaled_sign, sign
from fedjax_lite.uplink.sparse import random_k, top_k

__all__ = [
    "Sent",
    "compressor",
    "drive",
    "eden",
    "entropy_bits",
    "error_feedback",
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
