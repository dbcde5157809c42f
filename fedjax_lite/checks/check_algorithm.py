"""`checks.algorithm`: every property of the contract, tried on one algorithm."""

from collections.abc import Callable, Collection

import jax
import numpy as np

from fedjax_lite.base import Algorithm, Tree
from fedjax_lite.checks.algorithm_contract import PROMISED
from fedjax_lite.checks.answers import answers
from fedjax_lite.checks.report import Report
from fedjax_lite.checks.trial import FEW, trial
from fedjax_lite.data.federated import FederatedData


def algorithm(
    make: Callable[..., Algorithm] | Algorithm,
    data: FederatedData,
    params: Tree,
    *,
    clients: int = 5,
    values: tuple[float, float] | None = None,
    only: Collection[str] | None = None,
    seed: int = 0,
) -> Report:
    """Try out whether an algorithm keeps the contract of `fl.Algorithm`: compare a few rounds of few clients in different forms.

    Results count as the same up to what rounding may do in two rounds: 1e-4 of the largest magnitude of each array in float32, 1e-10 in
    float64, and exactly where there is nothing to round. Small clients of different sizes are enough; a client without examples finds most.

    Args:
        make: a function of the engine that makes the algorithm (None: its own choice), so that engines can be compared; or an algorithm.
        data: the training population, of at least 3 clients with examples.
        params: the global model at the start.
        clients: how many take part in a round.
        values: two values of a hyperparameter, that `make` then takes as its second argument: a tracer where runs are vmapped.
        only: the properties to ask, as they stand in the table; all by default.
        seed: of the choice of clients, and of the runs.

    Returns:
        A `Report`: rows of (property, holds, required, evidence), and `ok`.

    Raises:
        TypeError: if `make` is neither a function nor an algorithm, or data is no `fl.FederatedData`.
        ValueError: for fewer than 3 clients, or an unknown property.

    >>> import fedjax_lite as fl, jax.numpy as jnp, optax
    >>> data = fl.FederatedData.from_clients([{"x": jnp.arange(n + 1.0)} for n in range(4)])
    >>> def make(engine):
    ...     work = fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2, optax.sgd(0.1))
    ...     parts = work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0))
    ...     return fl.federate(*parts, batches=fl.Batches(2), population=4, engine=engine)
    >>> fl.checks.algorithm(make, data, jnp.zeros(()), only=["order of clients does not matter", "engines agree"]).ok
    True
    """
    if not callable(make) and not isinstance(make, Algorithm):
        raise TypeError(f"checks.algorithm: make must be a function of the engine, or a fl.Algorithm, got {make!r}")
    if not isinstance(data, FederatedData):
        raise TypeError(f"checks.algorithm: data must be a FederatedData, got a {type(data).__name__}: of a TrainTest, pass data.train")
    enough = int(np.sum(np.asarray(data.size) > 0))
    if min(clients, enough) < FEW:
        raise ValueError(
            f"checks.algorithm: needs {FEW} clients or more, got clients={clients} of {enough} with examples: give it more of either"
        )
    with jax.default_matmul_precision("highest"):  # an accelerator's short matmuls would look like broken properties
        rows = answers(lambda: trial(make, data, params, clients, values, seed), PROMISED, {}, only)
    return Report(min(clients, enough), rows, None)
