"""From a model to the loss function that client work and evaluation take."""

from fedjax_lite.models.losses.labels import check_labels
from fedjax_lite.models.losses.scores import scores_of
from fedjax_lite.models.losses.softmax import balanced
from fedjax_lite.models.losses.supervised import of_logits, supervised

__all__ = ["balanced", "check_labels", "of_logits", "scores_of", "supervised"]
