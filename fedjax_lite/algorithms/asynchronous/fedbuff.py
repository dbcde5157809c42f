"""FedBuff: the server steps when a buffer of uploads is full, each weighed by the age of the model that it started from."""

from typing import Any

import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.asynchronous.pieces import (
    arriving_by_speed,
    asynchronous,
    of_its_age,
    remembering,
    starting_from,
    weighed,
)
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.engine.pace import Asynchrony
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count, positive
from fedjax_lite.work import sgd_work


def fedbuff(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    buffer: int = 10,
    window: int = 32,
    staleness_power: Number = 0.5,
    divide_by: str = "buffer",
    too_old: str = "refuse",
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedBuff: clients train all the time, and the server takes a step for every K uploads that have arrived.

    y_k^0 = x^{t - tau_k}, local steps of `optimizer`, Delta_k = y_k - y_k^0;
    x^{t+1} = x^t + eta_g (1/K) sum_k s(tau_k) Delta_k,  s(tau) = (1 + tau)^-a.

    tau_k is the age of the model that client k started from, in steps of the server. The cohorts come from `fl.clock.arriving`. With equal
    devices and K clients at once it is FedAvg with equal weights.

    Args:
        buffer: K.
        window: how many of its most recent models the server keeps; so many copies of the model are in memory.
        staleness_power: a; 0: uploads count the same, whatever their age.
        divide_by: "buffer": K, so that a step of old uploads is a small one; "weights": the sum of s(tau_k).
        too_old: what `fl.clock.arrivals` does with an upload from a model that the server keeps no longer: "refuse" (an error), or "drop".
        aggregator: of the messages s(tau_k) Delta_k; `fl.aggregators.mean()` by default. A robust rule sees the weighed messages, and so do
            attackers, who forge the messages as they count.
        uplink: of Delta_k, before it is weighed.
        server_learning_rate: eta_g above 0. With models up to concurrency / K steps old a step of 1 oscillates where that is 4 or more.
        loss_fn, optimizer, batches, population, learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for a buffer or window below 1, a power below 0, unknown words, a server rate that is not positive, a private
            aggregator; in a round, for a cohort without ages.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedbuff(loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=2, buffer=1, staleness_power=1.0)
    >>> table = fl.clock.arrivals(algorithm, data, jnp.zeros(()), fl.clock.given([2.0, 1.0]), concurrency=2, rounds=3, order="queue")
    >>> table.ids[:, 0].tolist(), table.ages[:, 0].tolist()
    ([0, 1, 0], [0, 1, 1])
    >>> state, history = fl.simulate(algorithm, data, jnp.zeros(()), fl.clock.arriving(table), rounds=2, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4), history["virtual_hours"].shape  # half of 4, then a half of half of 8
    (4.0, (2,))

    Source: Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", algorithm 1 and section 5.
    """
    window = a_count("fedbuff", "window", window)
    positive("fedbuff", "staleness_power", staleness_power, or_zero=True)
    if divide_by not in ("buffer", "weights"):
        raise ValueError(f'fedbuff: divide_by must be "buffer" or "weights", got {divide_by!r}')
    rule = arriving_by_speed("fedbuff", aggregator, mean())
    algorithm = federate(
        starting_from(of_its_age, sgd_work(loss_fn, optimizer, learning_rate=learning_rate)),
        weighed(lambda age: (1.0 + age) ** -staleness_power, rule, divide=divide_by == "weights"),
        remembering(averaging("fedbuff", server_learning_rate), window),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
    return asynchronous("fedbuff", algorithm, Asynchrony(buffer, window, too_old))
