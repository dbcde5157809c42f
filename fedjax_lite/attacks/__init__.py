"""Attacks: pure functions that make the messages or the training examples of Byzantine clients, and see all honest messages."""

from fedjax_lite.attacks.attack import Attack, Seen, attacked, byzantine
from fedjax_lite.attacks.data import backdoor, label_flip, measured
from fedjax_lite.attacks.mimic import mimic
from fedjax_lite.attacks.optimised import min_max, min_sum, worst_case
from fedjax_lite.attacks.send import (
    alie,
    free_rider,
    gaussian,
    ipm,
    model_replacement,
    nan,
    opposite_mean,
    random,
    scaling,
    sign_flip,
    z_max,
)

__all__ = [
    "Attack",
    "Seen",
    "alie",
    "attacked",
    "backdoor",
    "byzantine",
    "free_rider",
    "gaussian",
    "ipm",
    "label_flip",
    "measured",
    "mimic",
    "min_max",
    "min_sum",
    "model_replacement",
    "nan",
    "opposite_mean",
    "random",
    "scaling",
    "sign_flip",
    "worst_case",
    "z_max",
]
