"""Local training: what one client does with its examples between the broadcast and its message."""

from fedjax_lite.work.sgd import sgd_work
from fedjax_lite.work.terms import gradient_term, loss_term

__all__ = ["gradient_term", "loss_term", "sgd_work"]
