"""What the name of a metric tells: whose it is, whether it is better when lower, and how its values read."""

import re
from collections.abc import Iterable, Set

__all__ = ["OF_ROUND", "OF_WORK", "check_names", "lower_is_better", "readable", "scale_of", "shown"]

OF_ROUND = frozenset({"round", "clients", "update_norm", "uplink_bits", "uplink_side_bits", "downlink_bits", "left_out"})
OF_WORK = frozenset({"loss", "initial_loss", "gradient_norm"})
OF_EVALUATION = ("test_", "train_")  # begin the names of what an evaluation reports

# Whole words of a name, so that a recall of what is abnormal, or a normalised score, is none of them.
LOWER = frozenset(
    "loss losses error errors norm norms mse rmse mae mape smape msle rmsle mase residual deviance perplexity ppl nll bpc bpd "
    "logloss entropy crossentropy xent bce brier ece mce hinge divergence kl distance regret risk wer cer eer fid "
    "bits bytes seconds epsilon".split()
)


def lower_is_better(metric: str, best: str | None = None) -> bool:
    """Whether a metric is better when it is lower: a loss, an error, a norm or a cost, by any whole word of its name.

    Args:
        metric: its name; words end at whatever is neither a letter nor a digit.
        best: "min" or "max", whatever the name says.

    Raises:
        ValueError: for another `best`.

    >>> [name for name in ("test_loss", "rmse", "abnormal_recall", "lossless_rate") if lower_is_better(name)]
    ['test_loss', 'rmse']
    >>> lower_is_better("test_terror", best="min"), lower_is_better("norm_reached", best="max")
    (True, False)
    """
    if best not in ("max", "min", None):
        raise ValueError(f'{metric}: best must be "max", "min" or None, got {best!r}')
    return best == "min" if best else not LOWER.isdisjoint(_words(metric))


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
    if found := sorted(name for name in names if name in OF_ROUND | taken or str(name).startswith(OF_EVALUATION)):
        raise ValueError(f"{whose} reports metrics under names that are taken, {', '.join(found)}: rename them")


def scale_of(metric: str) -> float:
    """How many units of a metric's name make one of what it is shown in: 8 bits are a byte."""
    return 8.0 if "bits" in _words(metric) else 1.0


def shown(metric: str, value: int | float | None, form: str = ".4g") -> str:
    """A metric's value for a person: bits as bytes, everything else in the form of a number, "-" for none.

    >>> shown("uplink_bits", 1.767e7), shown("test_loss", 0.123456), shown("test_loss", None)
    ('2.21 MB', '0.1235', '-')
    """
    if value is None:
        return "-"
    if {"bits", "bytes"} & _words(metric):
        return readable(value / scale_of(metric))
    return format(value, form)


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


def _words(metric: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", metric.lower()))
