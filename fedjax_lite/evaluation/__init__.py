"""Evaluation: of one model, of a model a client, after fine-tuning, and what it says about clients."""

from fedjax_lite.evaluation.classification import Classification, class_scores, classification
from fedjax_lite.evaluation.each import evaluate_each, evaluate_models
from fedjax_lite.evaluation.evaluate import evaluate, evaluate_apart
from fedjax_lite.evaluation.fine_tune import FineTune, fine_tuned
from fedjax_lite.evaluation.models import evaluate_algorithm, evaluate_further, finetune_key, numbers, received
from fedjax_lite.evaluation.summary import summarize

__all__ = [
    "Classification", "FineTune", "class_scores", "classification", "evaluate", "evaluate_algorithm", "evaluate_apart", "evaluate_each",
    "evaluate_further", "evaluate_models", "fine_tuned", "finetune_key", "numbers", "received", "summarize",
]  # fmt: skip
