"""What the name of a metric tells: whose it is, and whether it is better when lower."""

import re
from collections.abc import Iterable, Set

__all__ = ["OF_WORK", "check_names", "lower_is_better"]

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
    return best == "min" if best else not LOWER.isdisjoint(re.split(r"[^a-z0-9]+", metric.lower()))


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
