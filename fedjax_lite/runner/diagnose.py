"""Find why a run is no longer finite: the round, the metric, the model's leaf, and clients whose data alone cause this."""

import math
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.models.loss_fn import LossFn, of_one_model
from fedjax_lite.runner.stream import evaluated

__all__ = ["first_not_finite", "suspects"]

MOST = 5  # clients that an error names


def first_not_finite(
    measured: dict[str, np.ndarray], evaluation: dict[str, Any], test_loss: str, nothing_is_nan: bool = False
) -> tuple[int | None, str]:
    """Find the first round of a segment in which the loss, the update or every message is not finite; skip rounds without clients.

    Args:
        measured: metrics by name, `[rounds]`.
        evaluation: metrics of the model after the last round.
        test_loss: the name of the loss in `evaluation`.
        nothing_is_nan: True if a loss of NaN means that no example was counted, as in `Mean.value`.

    Returns:
        The round's index in the segment, and the metric with its value as text; (None, "") if all is finite.

    >>> first_not_finite({"loss": np.array([1.0, np.nan])}, {}, "test_loss")
    (1, 'loss=nan')
    """
    present = measured["clients"] > 0 if "clients" in measured else True
    bad: dict[str, np.ndarray] = {}
    if "non_finite" in measured and "clients" in measured:  # with all messages dropped the model stands still and no loss shows why
        bad["non_finite"] = (measured["non_finite"] >= measured["clients"]) & present
    bad |= {name: ~np.isfinite(measured[name]) & present for name in ("loss", "update_norm") if name in measured}
    if nothing_is_nan and "loss" in bad:
        bad["loss"] &= ~np.isnan(measured["loss"])
    places = [(int(np.argmax(rounds)), order, name) for order, (name, rounds) in enumerate(bad.items()) if rounds.any()]
    if places:
        first, _, name = min(places)
        return first, f"{name}={measured[name][first]}" + (", all messages" if name == "non_finite" else "")
    if not math.isfinite(evaluation.get(test_loss) or 0.0):
        return len(next(iter(measured.values()))) - 1, f"{test_loss}={evaluation[test_loss]}"
    return None, ""


def suspects(model: Tree, start: Tree, loss_fn: LossFn | None, data: FederatedData | Store) -> str:
    """Name the model's first leaf that is not finite, and up to `MOST` clients whose loss at `start` is not finite.

    Args:
        model: the global model when the run ended.
        start: the initial parameters.
        loss_fn: None: no client is named.
        data: the training population.
    """
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(model))
    leaf = next((jax.tree_util.keystr(path) for path, x in leaves if path and not np.isfinite(np.asarray(x, float)).all()), "")
    named = [f"leaf {leaf} of the model"] if leaf else []
    if loss_fn is not None:
        total, count = jax.device_get(evaluated(of_one_model(loss_fn), start, data)["loss"])
        clients = np.flatnonzero((count > 0) & ~np.isfinite(total))
        more = f" and {len(clients) - MOST} more" if len(clients) > MOST else ""
        if len(clients):
            named.append(
                f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients[:MOST]))}{more}, whose loss is not finite at the start"
            )
    return " and ".join(named)
