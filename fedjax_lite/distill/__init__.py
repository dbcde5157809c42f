"""Federated distillation: soft labels on public examples, from many models into one."""

from fedjax_lite.distill.all_models import mean_over_models
from fedjax_lite.distill.digest import consensus_server, digest_work
from fedjax_lite.distill.distillation_server import distillation_server
from fedjax_lite.distill.ensemble import (
    Ensemble,
    by_accuracy,
    by_certainty,
    by_class_counts,
    mean_logits,
    mean_probabilities,
    sharpened,
)
from fedjax_lite.distill.ensemble_aggregator import Lesson, ensemble_aggregator
from fedjax_lite.distill.lessons import Lessons, lessons
from fedjax_lite.distill.public_set import public_set
from fedjax_lite.distill.soft_labels import Knowledge, soft_labels
from fedjax_lite.distill.student import distillation_loss, teach

__all__ = [
    "Ensemble",
    "Knowledge",
    "Lesson",
    "Lessons",
    "by_accuracy",
    "by_certainty",
    "by_class_counts",
    "consensus_server",
    "distillation_loss",
    "distillation_server",
    "digest_work",
    "lessons",
    "mean_logits",
    "mean_over_models",
    "mean_probabilities",
    "ensemble_aggregator",
    "public_set",
    "sharpened",
    "soft_labels",
    "teach",
]
