"""The meaning of a metric's name: the part that reports the metric, the better direction, a guarantee's cover, the unit shown."""

import re
from collections.abc import Callable, Iterable, Set
from typing import Any

__all__ = [
    "AUC", "BALANCED", "EVALUATIONS", "FINETUNED", "HOURS", "INSIDE", "LOG_PERPLEXITY", "NEW", "OF_ROUND", "OF_WORK", "ON_PUBLIC", "OWN",
    "SPREAD", "TEST", "check_names", "exponentials", "headline", "in_order", "inside_guarantee", "is_evaluation", "is_size",
    "lower_is_better", "of_each_model", "of_global", "of_model", "of_whom", "parted", "prefix_of", "readable", "scale_of", "shown",
    "top_accuracy",
]  # fmt: skip

# Names of the metrics that a round reports, and of the metrics that client work reports.
HOURS = "virtual_hours"  # since the start of a run under a virtual clock
OF_CLOCK = frozenset({"seconds", HOURS, "waited_for", "too_late", "lost", "wasted_bits", "staleness", "oldest", "too_old"})
OF_ROUND = frozenset({"round", "clients", "update_norm", "uplink_bits", "uplink_side_bits", "downlink_bits", "left_out"}) | OF_CLOCK
OF_WORK = frozenset({"loss", "initial_loss", "gradient_norm"})
TEST, TRAIN = "test_", "train_"
EVALUATIONS = {TEST: "held-out examples", TRAIN: "all training examples"}  # prefix of an evaluation's metrics -> its examples
# After an evaluation's prefix, the model that a metric is of where it is not the global one: each client's own, or the global one after
# each client has fine-tuned it.
OWN, FINETUNED = "own_", "finetuned_"
NEW = "new_"  # before it: on clients that never took part
SPREAD = "clients"  # after an evaluation's prefix, the name of the entry with each metric's spread over clients
ON_PUBLIC = {"teacher_accuracy": "teacher", "ensemble_accuracy": "ensemble", "student_accuracy": "student"}  # public examples: the model
# Inside a privacy guarantee: functions of the noisy aggregates, of settings, and of labels of public examples alone.
INSIDE = frozenset({"round", "update_norm", "clip_norm", "ensemble_accuracy", "student_accuracy"})

AUC, BALANCED = "auc", "balanced_accuracy"  # means over classes, of all examples together
LOG_PERPLEXITY = "log_perplexity"  # a mean over tokens, whose exponential is shown beside it
# Whole words of a name: "abnormal_recall" and "normalised_score" do not have the word "norm".
LOWER = frozenset(
    "loss losses error errors norm norms mse rmse mae mape smape msle rmsle mase residual deviance perplexity perplexities ppl nll bpc bpd "
    "bpb logloss entropy crossentropy xent bce brier ece mce hinge divergence kl distance regret risk gap false fpr fnr wer cer eer fid "
    "cost costs bits bytes seconds hours late lost staleness oldest epsilon".split()
)


def is_evaluation(metric: str) -> bool:
    """Return whether an evaluation reports `metric`, and not a round or a part of an algorithm.

    >>> [name for name in ("loss", "test_loss", "personal_loss", "train_accuracy") if is_evaluation(name)]
    ['test_loss', 'train_accuracy']
    """
    return metric.startswith(tuple(EVALUATIONS))


def parted(metric: str) -> tuple[str, str]:
    """Split a metric's name into the prefix of an evaluation, or "", and the name without prefix.

    >>> parted("test_loss"), parted("personal_loss")
    (('test_', 'loss'), ('', 'personal_loss'))
    """
    prefix = next(filter(metric.startswith, EVALUATIONS), "")
    return prefix, metric.removeprefix(prefix)


def of_model(metric: str) -> tuple[str, str, str]:
    """Split a metric's name into the prefix of an evaluation, `OWN`, `FINETUNED` or "" of the global model, and the name without both.

    >>> of_model("test_own_loss"), of_model("train_accuracy")
    (('test_', 'own_', 'loss'), ('train_', '', 'accuracy'))
    """
    prefix, name = parted(metric)
    clients, model, rest = of_whom(name) if prefix else ("", "", name)
    return prefix, clients + model, rest


def of_each_model(metric: str, names: Iterable[str]) -> list[str]:
    """Return a metric of the global model, and those among `names` that are the same of other models, in the order of models.

    >>> of_each_model("test_loss", ["test_finetuned_loss", "test_own_accuracy", "test_loss", "test_own_loss"])
    ['test_loss', 'test_own_loss', 'test_finetuned_loss']
    """
    prefix, name = parted(metric)
    known = set(names)
    return [metric, *(other for model in (OWN, FINETUNED) if prefix and (other := prefix + model + name) in known)]


def prefix_of(test: Any) -> str:
    """Return the prefix of metrics on held-out examples, or on the training data if `test` is None.

    >>> prefix_of(None)
    'train_'
    """
    return TRAIN if test is None else TEST


def of_whom(name: str) -> tuple[str, str, str]:
    """Split a name, without the prefix of an evaluation, into `NEW` or "", `OWN`, `FINETUNED` or "", and the metric.

    >>> of_whom("own_accuracy"), of_whom("new_finetuned_loss"), of_whom("loss")
    (('', 'own_', 'accuracy'), ('new_', 'finetuned_', 'loss'), ('', '', 'loss'))
    """
    clients = NEW if name.startswith(NEW) else ""
    model = next(filter(name.removeprefix(clients).startswith, (OWN, FINETUNED)), "")
    return clients, model, name.removeprefix(clients).removeprefix(model)


def of_global(name: str) -> str:
    """Return the name, without the prefix of an evaluation, of the global model's metric beside that of another model.

    >>> of_global("own_accuracy"), of_global("new_finetuned_loss"), of_global("loss")
    ('accuracy', 'new_loss', 'loss')
    """
    clients, _, metric = of_whom(name)
    return clients + metric


def inside_guarantee(metric: str, central: bool) -> bool:
    """Return whether a private run's guarantee covers a metric; other metrics are computed from clients' data without noise.

    Args:
        metric: the metric's name; an unknown name is outside.
        central: True if no client holds the test examples.

    >>> names = ("round", "loss", "update_norm", "clipped", "test_accuracy", "test_own_accuracy", "test_new_accuracy")
    >>> [name for name in names if not inside_guarantee(name, central=True)]
    ['loss', 'clipped', 'test_own_accuracy', 'test_new_accuracy']
    """
    model_of = metric.removeprefix(TEST)
    return metric in INSIDE or (central and metric.startswith(TEST) and of_whom(model_of) == ("", "", model_of))


def lower_is_better(metric: str, best: str | None = None) -> bool:
    """Return whether a metric is better when it is lower: a loss, an error, a norm or a cost, by a whole word of its name.

    Args:
        metric: the metric's name; words end before a capital, and at characters that are no letters.
        best: "min" or "max", in place of the name's meaning.

    Raises:
        ValueError: for another `best`.

    >>> [name for name in ("test_loss", "valRMSE2", "abnormal_recall", "lossless_rate") if lower_is_better(name)]
    ['test_loss', 'valRMSE2']
    >>> lower_is_better("test_terror", best="min"), lower_is_better("norm_reached", best="max")
    (True, False)
    """
    if best not in ("max", "min", None):
        raise ValueError(f'{metric}: best must be "max", "min" or None, got {best!r}')
    words = _words(metric)
    return best == "min" if best else not LOWER.isdisjoint(words) or {"negative", "likelihood"} <= words


def in_order(metrics: Iterable[str]) -> list[str]:
    """Sort metrics for display: metrics of evaluations, the algorithm's own metrics, then costs and the metrics of every round.

    >>> in_order(["clients", "personal_loss", "uplink_bits", "test_loss"])
    ['test_loss', 'personal_loss', 'clients', 'uplink_bits']
    """

    def is_cost(metric):
        return metric in OF_ROUND or is_size(metric) or not _words(metric).isdisjoint({"seconds", "epsilon"})

    return sorted(metrics, key=lambda metric: 0 if is_evaluation(metric) else 1 + is_cost(metric))


def headline(metrics: Iterable[str]) -> str:
    """Choose the metric to rank by if the user names none: an evaluation's accuracy, its loss, or the first in order.

    >>> headline(["clients", "test_loss", "train_accuracy"]), headline(["clients", "personal_loss"])
    ('train_accuracy', 'personal_loss')
    """
    known = in_order(metrics)
    return next((name for of in ("accuracy", "loss") for prefix in EVALUATIONS if (name := prefix + of) in known), known[0])


def top_accuracy(k: Any) -> str:
    """Return the name of the share of examples whose label is among the k highest logits.

    >>> top_accuracy(5)
    'top5_accuracy'
    """
    return f"top{k}_accuracy"


def exponentials(names: Iterable[str]) -> dict[str, str]:
    """Return the names of logarithms of a perplexity, and of each the name of its exponential, which is no mean over examples.

    >>> exponentials(["loss", "own_log_perplexity"])
    {'own_log_perplexity': 'own_perplexity'}
    """
    return {name: name.removesuffix(LOG_PERPLEXITY) + LOG_PERPLEXITY[4:] for name in names if name.endswith(LOG_PERPLEXITY)}


def check_names(names: Iterable[str], whose: str, taken: Set[str] = frozenset()) -> None:
    """Refuse metrics under names that a round, an evaluation or the runner uses, which would replace each other.

    Args:
        names: the metrics' names.
        whose: the part that reports the metrics, for the error.
        taken: further names that are not free.

    Raises:
        ValueError: naming all of them.

    >>> check_names(["accuracy", "clients"], "loss_fn")
    Traceback (most recent call last):
    ValueError: loss_fn reports metrics under names that are taken, clients: rename them
    """
    if refused := sorted(name for name in names if name in OF_ROUND | taken or is_evaluation(str(name))):
        raise ValueError(f"{whose} reports metrics under names that are taken, {', '.join(refused)}: rename them")


def scale_of(metric: str) -> float:
    """Return the divisor from a metric's unit to the unit that is shown: 8 for bits, shown as bytes, else 1.

    >>> scale_of("uplink_bits"), scale_of("bits_per_character"), scale_of("test_loss")
    (8.0, 1.0, 1.0)
    """
    return 8.0 if is_size(metric) and "bits" in _words(metric) else 1.0


def shown(metric: str, value: int | float | None, form: str | Callable[[float], str] = ".4g") -> str:
    """Write a metric's value for a person: bits as bytes, other numbers in `form`, "-" for None.

    >>> shown("uplink_bits", 1.767e7), shown("bits_per_character", 1.5), shown("test_loss", 0.123456), shown("test_loss", None)
    ('2.21 MB', '1.5', '0.1235', '-')
    """
    if value is None:
        return "-"
    if is_size(metric):
        return readable(value / scale_of(metric))
    return form(value) if callable(form) else format(value, form)


def readable(number: int | float) -> str:
    """Write a number of bytes in a fitting unit.

    >>> [readable(n) for n in (0, 999.4, 999_600, 2.5e9)]
    ['0 B', '999 B', '1 MB', '2.5 GB']
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"


def is_size(metric: str) -> bool:
    """Return whether a metric is a number of bits or bytes; bits per character, or per byte, are a perplexity."""
    words = _words(metric)
    return not words.isdisjoint({"bits", "bytes"}) and "per" not in words


def _words(metric: str) -> set[str]:
    """Return the words of a metric's name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", metric)}
