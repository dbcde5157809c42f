"""FedRS: the logits of classes that a client has no example of are scaled down, so that it hardly pushes them away."""

from typing import Any

import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.label_counts import counting_labels, loss_of_changed
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.model import Model
from fedjax_lite.refuse import a_share, integer
from fedjax_lite.work import sgd_work


def fedrs(
    model: Model,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    classes: int,
    alpha: Number = 0.5,
    scale: str = "binary",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedRS: FedAvg on the cross-entropy of a restricted softmax.

    z_c <- s_c z_c in training alone, n_c client k's examples of class c;  aggregation as in `fedavg`.
    "binary": s_c = 1, but alpha where n_c = 0;  "graded": s_c = alpha + (1 - alpha) n_c / max n.

    The counts are taken in a pass before training and stay with the client.

    Args:
        model: its outputs are logits `[batch, ..., classes]`, its labels the leaf "y". The whole logit is scaled, its bias too.
        classes: how many there are.
        alpha: in [0, 1]; 1 is FedAvg.
        scale: "binary", the paper's, or "graded", as the authors' code has it.
        optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose metrics "loss" and "initial_loss" are of the scaled logits, and whose `loss_fn` is that of plain ones.

    Raises:
        ValueError: for an alpha outside [0, 1], another scale, a server rate that is not positive.

    >>> import fedjax_lite as fl, jax
    >>> data = fl.FederatedData.from_clients([{"x": jnp.ones((4, 1)), "y": jnp.array([0, 0, 0, 2])}])
    >>> model = fl.models.linear(4)
    >>> algorithm = fl.algorithms.fedrs(model, optax.sgd(1.0), batches=fl.Batches(None), population=1, classes=4)
    >>> params = model.init(jax.random.key(0), data.example)
    >>> state, _ = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> algorithm.params(state)["Dense_0"]["bias"].tolist()  # of classes 1 and 3, absent, half of a quarter
    [0.5, -0.125, 0.0, -0.125]

    Source: Li, Zhan 2021, "FedRS: federated learning with restricted softmax for label distribution non-IID data".
    """
    integer("fedrs", "classes", classes, least=2)
    alpha = a_share("fedrs", "alpha", alpha, "[0, 1]")
    if scale not in ("binary", "graded"):
        raise ValueError(f'fedrs: scale must be "binary" or "graded", got {scale!r}')

    def restricted(logits, labels, counts):
        del labels
        present = counts > 0 if scale == "binary" else counts / jnp.maximum(jnp.max(counts), 1)
        return (alpha + (1 - alpha) * present) * logits

    loss_fn = loss_of_changed(restricted, model)
    algorithm = federate(
        counting_labels(sgd_work(loss_fn, optimizer, learning_rate=learning_rate), classes),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedrs", server_learning_rate),
        batches=batches._replace(before=1),
        population=population,
        uplink=uplink,
        engine=engine,
    )
    return algorithm._replace(loss_fn=supervised(model))
