"""What an evaluation says in numbers: over all examples, and how a metric is spread over clients."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.base import Mean
from fedjax_lite.metrics import SPREAD, TEST, exponentials, lower_is_better, of_global, of_whom

__all__ = ["fairness", "summarize"]

DECILES = np.arange(10, 100, 10)
FEW = 20  # a spread over fewer clients lists each client's value, over more it has deciles


def summarize(sums: dict[str, Mean], prefix: str = TEST, best: Mapping[str, str] | None = None) -> dict[str, object]:
    """Summarize an evaluation on the host: global values, and their spread over clients.

    Args:
        sums: from `evaluate`.
        prefix: put before each metric's name.
        best: metric -> "min" or "max", where its name does not tell; by default a loss, an error or a norm has "min".

    Returns:
        {"test_loss": float, ..., "test_clients": {"loss": {"mean", "std", "deciles" (10 % to 90 %, interpolated between two clients),
        "worst_decile", "gini"}, ...}}; of fewer than 20 clients "values", each client's from the lowest on, instead of "deciles".
        A global value is sum total / sum count, None where no example was counted; beside a "log_perplexity" stands its exponential. A
        metric's spread is over the clients with a count above 0, at least two; "worst_decile" is the mean over the worst tenth of these
        clients (rounded up), worst being the highest where lower is better, else the lowest. "gini" is sum_kl |a_k - a_l| /
        (2 N sum_k a_k), 0 where all are equal; None where a value is below 0. Of another model than the global one (own, fine-tuned)
        "hurt" is the fraction of clients for which the global model is better.

    >>> sums = {"loss": Mean(np.array([2.0, 9.0]), np.array([2, 3]))}
    >>> summarize(sums)["test_loss"], summarize(sums)["test_clients"]["loss"]["mean"]
    (2.2, 2.0)
    """
    sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
    summary: dict[str, object] = {}
    spread = {}
    for name, (total, count) in sums.items():
        summary[prefix + name] = float(total.sum() / count.sum()) if count.sum() > 0 else None
        each = np.sort(_each(sums[name]))
        if len(each) > 1:
            lower = lower_is_better(name, (best or {}).get(name))
            spread[name] = _spread(each, lower) | _hurt(sums, name, lower)
    for log, name in exponentials(sums).items():
        total, count = (x.sum() for x in sums[log])
        with np.errstate(over="ignore"):
            summary[prefix + name] = float(np.exp(total / count)) if count > 0 else None
    return summary | ({prefix + SPREAD: spread} if spread else {})


def _each(metric: Mean) -> np.ndarray:
    """Return a metric's value for each client with a count."""
    total, count = (np.asarray(x) for x in metric)
    return total[count > 0] / count[count > 0]


def _spread(each: np.ndarray, lower: bool) -> dict[str, object]:
    """Describe the distribution over clients of a metric's sorted values `each`."""
    worst = -(-len(each) // 10)
    with np.errstate(invalid="ignore"):  # a model that has diverged has infinite losses
        return {
            "mean": float(each.mean()),
            "std": float(each.std()),
            **({"values": each.tolist()} if len(each) < FEW else {"deciles": np.percentile(each, DECILES).tolist()}),
            "worst_decile": float((each[-worst:] if lower else each[:worst]).mean()),
            "gini": _gini(each),
        }


def _gini(each: np.ndarray) -> float | None:
    """Return the Gini coefficient of sorted values; None where one is below 0."""
    n, total = len(each), each.sum()
    if not each[0] >= 0:
        return None
    return float(2 * (np.arange(1, n + 1) * each).sum() / (n * total) - (n + 1) / n) if total > 0 else 0.0


def _hurt(sums: dict[str, Mean], name: str, lower: bool) -> dict[str, float]:
    """Return the fraction of clients for which the global model is better than the model that a metric is of."""
    other = of_global(name)
    if other == name or other not in sums:
        return {}
    (mine, of), (theirs, among) = sums[name], sums[other]
    both = (of > 0) & (among > 0)
    with np.errstate(invalid="ignore"):
        gain = mine[both] / of[both] - theirs[both] / among[both]
    return {"hurt": float(np.mean(gain > 0 if lower else gain < 0))} if both.any() else {}


def fairness(sums: dict[str, Mean]) -> dict[str, Float[Array, ""]]:
    """Return the mean over clients and the mean over the worst tenth of them, as `summarize` takes both; pure, for compiled programs.

    Args:
        sums: from `evaluate`, leaves `[population]`.

    Returns:
        {"client_accuracy": mean over the clients with a count above 0, "worst_accuracy": mean over the worst tenth, ...}, of other models
        "own_client_accuracy" and so on; NaN where no client has a count.

    >>> sums = {"accuracy": Mean(jnp.array([1.0, 3.0, 0.0]), jnp.array([4.0, 4.0, 0.0]))}
    >>> {name: float(x) for name, x in fairness(sums).items()}
    {'client_accuracy': 0.5, 'worst_accuracy': 0.25}
    """
    found = {}
    for name, (total, count) in sums.items():
        (clients, model, metric), there, number = of_whom(name), count > 0, jnp.sum(count > 0)
        sign = -1 if lower_is_better(name) else 1
        best_last = jnp.sort(jnp.where(there, sign * total / jnp.where(there, count, 1), jnp.inf))  # those without a count behind all
        for kind, among in (("client_", number), ("worst_", (number + 9) // 10)):
            taken = jnp.arange(len(count)) < among
            found[clients + model + kind + metric] = sign * jnp.sum(jnp.where(taken, best_last, 0)) / jnp.where(among > 0, among, jnp.nan)
    return found
