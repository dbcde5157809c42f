"""What the name of a metric tells: whether it is better when lower."""

import re

__all__ = ["lower_is_better"]

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
