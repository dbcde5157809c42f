"""Federated distillation: soft labels on public examples, from many models into one."""

from fedjax_lite.distill.ensemble import (
    Ensemble,
    by_accuracy,
    by_certainty,
    by_class_counts,
    mean_logits,
    mean_probabilities,
    sharpened,
)
from fedjax_lite.distill.student import Lessons, distillation_loss, lessons, taught

__all__ = [
    "Ensemble",
    "Lessons",
    "by_accuracy",
    "by_certainty",
    "by_class_counts",
    "distillation_loss",
    "lessons",
    "mean_logits",
    "mean_probabilities",
    "sharpened",
    "taught",
]
