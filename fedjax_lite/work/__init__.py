"""Local training: what one client does with its examples between the broadcast and its message."""

from fedjax_lite.work.personal import Partly, keep_leaves
from fedjax_lite.work.sgd import sgd_work
from fedjax_lite.work.terms import gradient_term, loss_term
from fedjax_lite.work.train_leaves import train_leaves

__all__ = ["Partly", "gradient_term", "keep_leaves", "loss_term", "sgd_work", "train_leaves"]
