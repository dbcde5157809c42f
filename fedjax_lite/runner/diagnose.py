"""Why a run is no longer finite: which round, what is not, in which leaf, and clients whose data alone will do it."""

import math
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.runner.stream import evaluated

__all__ = ["first_not_finite", "suspects"]

MOST = 5  # clients that are named


def first_not_finite(
    measured: dict[str, np.ndarray], evaluation: dict[str, Any], test_loss: str, nothing_is_nan: bool = False
) -> tuple[int | None, str]:
    """The first round of a segment, with clients, whose messages, loss or update are all not finite, and what is not; or None.

    Args:
        measured: metrics `[rounds]`.
        evaluation: after the last of these rounds.
        test_loss: the name of the loss in it.
        nothing_is_nan: whether a loss that is NaN says that nothing was counted, as `Mean.value` does.

    >>> first_not_finite({"loss": np.array([1.0, np.nan])}, {}, "test_loss")
    (1, 'loss=nan')
    """
    present = measured["clients"] > 0 if "clients" in measured else True
    bad: dict[str, np.ndarray] = {}
    if "non_finite" in measured and "clients" in measured:  # dropped one and all: the model stands still, and no loss is told
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
    """What to look at: the first leaf of the model that is not finite, and clients, if not all, whose loss is not even for the
    parameters at the start.

    Args:
        model: the global model when the run ended.
        start: the parameters that the run began with.
        loss_fn: None: no client can be told.
        data: the training population.
    """
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(model))
    leaf = next((jax.tree_util.keystr(path) for path, x in leaves if path and not np.isfinite(np.asarray(x, float)).all()), "")
    found = [f"leaf {leaf} of the model"] if leaf else []
    if loss_fn is not None:
        total, count = jax.device_get(evaluated(loss_fn, start, data)["loss"])
        clients = np.flatnonzero((count > 0) & ~np.isfinite(total))
        more = f" and {len(clients) - MOST} more" if len(clients) > MOST else ""
        if len(clients):
            found.append(
                f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients[:MOST]))}{more}, whose loss is not finite at the start"
            )
    return " and ".join(found)
