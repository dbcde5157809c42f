"""FedLC: a client's logits are calibrated by how many examples it has of each class."""

from typing import Any

import jax
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
from fedjax_lite.refuse import integer, positive
from fedjax_lite.work import sgd_work


def fedlc(
    model: Model,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    classes: int,
    tau: Number = 1.0,
    floor: Number | None = None,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedLC: FedAvg on the cross-entropy of logits that are lowered the more, the fewer examples of the class the client has.

    z_c <- z_c - tau n_c^(-1/4), n_c client k's examples of class c, in training alone;  aggregation as in `fedavg`.

    A class of which the client has no example takes no part in its softmax. The counts are taken in a pass before training and stay
    with the client. The label's own class is in the denominator, as in the code of the method's users; the paper's sum leaves it out.

    Args:
        model: its outputs are logits `[batch, ..., classes]`, its labels the leaf "y".
        classes: how many there are.
        tau: at least 0, the strength; 0 leaves absent classes out alone.
        floor: in place of leaving absent classes out, the least count; with 1e-8 their logits are lowered by 100 tau.
        optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose metrics "loss" and "initial_loss" are of the calibrated logits, and whose `loss_fn` is that of plain ones.

    Raises:
        ValueError: for a tau below 0, a floor or a server rate that is not positive.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.ones((4, 1)), "y": jnp.array([0, 0, 0, 2])}])
    >>> model = fl.models.linear(3)
    >>> algorithm = fl.algorithms.fedlc(model, optax.sgd(1.0), batches=fl.Batches(None), population=1, classes=3, tau=0.0)
    >>> params = model.init(jax.random.key(0), data.example)
    >>> state, _ = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> algorithm.params(state)["Dense_0"]["bias"].tolist()  # class 1 is absent: its bias stays
    [0.25, 0.0, -0.25]

    Source: Zhang et al. 2022, "Federated learning with label distribution skew via logits calibration".
    """
    integer("fedlc", "classes", classes, least=2)
    positive("fedlc", "tau", tau, or_zero=True)
    if floor is not None:
        positive("fedlc", "floor", floor)

    def calibrated(logits, labels, counts):
        lowered = logits - tau * jnp.maximum(counts, 1 if floor is None else floor) ** -0.25
        held = (counts > 0) | jax.nn.one_hot(labels, classes, dtype=bool)  # a label's own class too, before it is counted
        return lowered if floor is not None else jnp.where(held, lowered, -jnp.inf)

    loss_fn = loss_of_changed(calibrated, model)
    algorithm = federate(
        counting_labels(sgd_work(loss_fn, optimizer, learning_rate=learning_rate), classes),
        weighted_mean() if aggregator is None else aggregator,
        averaging("fedlc", server_learning_rate),
        batches=batches._replace(before=1),
        population=population,
        uplink=uplink,
        engine=engine,
    )
    return algorithm._replace(loss_fn=supervised(model))
