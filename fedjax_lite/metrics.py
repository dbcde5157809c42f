"""What the name of a metric tells: whose it is, which way is better, whether a guarantee covers it, and how its values read."""

import re
from collections.abc import Callable, Iterable, Set
from typing import Any

__all__ = [
    "EVALUATIONS", "INSIDE", "OF_ROUND", "OF_WORK", "ON_PUBLIC", "SPREAD", "TEST", "check_names", "headline", "in_order",
    "inside_guarantee", "is_evaluation", "lower_is_better", "parted", "prefix_of", "readable", "scale_of", "shown",
]  # fmt: skip

OF_ROUND = frozenset({"round", "clients", "update_norm", "uplink_bits", "uplink_side_bits", "downlink_bits", "left_out"})
OF_WORK = frozenset({"loss", "initial_loss", "gradient_norm"})
TEST, TRAIN = "test_", "train_"
EVALUATIONS = {TEST: "held-out examples", TRAIN: "all training examples"}  # what begins an evaluation's names -> what it is of
SPREAD = "clients"  # ends the name under which an evaluation tells how its metrics are spread over clients
ON_PUBLIC = {"teacher_accuracy": "teacher", "ensemble_accuracy": "ensemble", "student_accuracy": "student"}  # on public examples -> whose
# Inside a privacy guarantee: functions of the noisy aggregates, of settings, and of labels of public examples alone.
INSIDE = frozenset({"round", "update_norm", "clip_norm", "ensemble_accuracy", "student_accuracy"})

# Whole words of a name, so that a recall of what is abnormal, or a normalised score, is none of them.
LOWER = frozenset(
    "loss losses error errors norm norms mse rmse mae mape smape msle rmsle mase residual deviance perplexity perplexities ppl nll bpc bpd "
    "bpb logloss entropy crossentropy xent bce brier ece mce hinge divergence kl distance regret risk gap false fpr fnr wer cer eer fid "
    "cost costs bits bytes seconds epsilon".split()
)


def is_evaluation(metric: str) -> bool:
    """Whether an evaluation reports it, and neither a round nor one of its parts.

    >>> [name for name in ("loss", "test_loss", "personal_loss", "train_accuracy") if is_evaluation(name)]
    ['test_loss', 'train_accuracy']
    """
    return metric.startswith(tuple(EVALUATIONS))


def parted(metric: str) -> tuple[str, str]:
    """What an evaluation put before a metric's name, and that name.

    >>> parted("test_loss"), parted("personal_loss")
    (('test_', 'loss'), ('', 'personal_loss'))
    """
    prefix = next(filter(metric.startswith, EVALUATIONS), "")
    return prefix, metric.removeprefix(prefix)


def prefix_of(test: Any) -> str:
    """What begins the names of an evaluation on held-out examples or, where there are none, on the training data.

    >>> prefix_of(None)
    'train_'
    """
    return TRAIN if test is None else TEST


def inside_guarantee(metric: str, central: bool) -> bool:
    """Whether a private run's guarantee covers a metric; all others are computed from clients' data without noise.

    Args:
        metric: its name; one that is not known to be inside is outside.
        central: whether the test examples are no client's.

    >>> [name for name in ("round", "loss", "update_norm", "clipped", "test_accuracy") if not inside_guarantee(name, central=True)]
    ['loss', 'clipped']
    """
    return metric in INSIDE or (central and metric.startswith(TEST))


def lower_is_better(metric: str, best: str | None = None) -> bool:
    """Whether a metric is better when it is lower: a loss, an error, a norm or a cost, by any whole word of its name.

    Args:
        metric: its name; words end at whatever is no letter, and before a capital.
        best: "min" or "max", whatever the name says.

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
    """Metrics as they are shown: what was evaluated, what the algorithm reports of itself, then costs and what every round counts.

    >>> in_order(["clients", "personal_loss", "uplink_bits", "test_loss"])
    ['test_loss', 'personal_loss', 'clients', 'uplink_bits']
    """

    def is_cost(metric):
        return metric in OF_ROUND or _is_size(metric) or not _words(metric).isdisjoint({"seconds", "epsilon"})

    return sorted(metrics, key=lambda metric: 0 if is_evaluation(metric) else 1 + is_cost(metric))


def headline(metrics: Iterable[str]) -> str:
    """The one of some metrics to rank by where none is named: an evaluation's accuracy, its loss, or the first that is shown.

    >>> headline(["clients", "test_loss", "train_accuracy"]), headline(["clients", "personal_loss"])
    ('train_accuracy', 'personal_loss')
    """
    known = in_order(metrics)
    return next((name for of in ("accuracy", "loss") for prefix in EVALUATIONS if (name := prefix + of) in known), known[0])


def check_names(names: Iterable[str], whose: str, taken: Set[str] = frozenset()) -> None:
    """Refuse metrics under names that a round, an evaluation or the runner reports under, which would take their places.

    Args:
        names: of the metrics.
        whose: who reports them, for the error.
        taken: more names that are not free.

    Raises:
        ValueError: naming all of them.

    >>> check_names(["accuracy", "clients"], "loss_fn")
    Traceback (most recent call last):
    ValueError: loss_fn reports metrics under names that are taken, clients: rename them
    """
    if found := sorted(name for name in names if name in OF_ROUND | taken or is_evaluation(str(name))):
        raise ValueError(f"{whose} reports metrics under names that are taken, {', '.join(found)}: rename them")


def scale_of(metric: str) -> float:
    """How many units of a metric's name make one of what it is shown in: 8 bits are a byte.

    >>> scale_of("uplink_bits"), scale_of("bits_per_character"), scale_of("test_loss")
    (8.0, 1.0, 1.0)
    """
    return 8.0 if _is_size(metric) and "bits" in _words(metric) else 1.0


def shown(metric: str, value: int | float | None, form: str | Callable[[float], str] = ".4g") -> str:
    """A metric's value for a person: bits as bytes, everything else in the form of a number, "-" for none.

    >>> shown("uplink_bits", 1.767e7), shown("bits_per_character", 1.5), shown("test_loss", 0.123456), shown("test_loss", None)
    ('2.21 MB', '1.5', '0.1235', '-')
    """
    if value is None:
        return "-"
    if _is_size(metric):
        return readable(value / scale_of(metric))
    return form(value) if callable(form) else format(value, form)


def readable(number: int | float) -> str:
    """Bytes in a unit that fits.

    >>> [readable(n) for n in (0, 999.4, 999_600, 2.5e9)]
    ['0 B', '999 B', '1 MB', '2.5 GB']
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"


def _is_size(metric: str) -> bool:
    """Whether it is so many bits or bytes; bits per character, or per byte, are a perplexity."""
    words = _words(metric)
    return not words.isdisjoint({"bits", "bytes"}) and "per" not in words


def _words(metric: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", metric)}
