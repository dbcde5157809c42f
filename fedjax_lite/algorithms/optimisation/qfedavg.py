"""q-FedAvg: clients with a larger loss count more, the more the larger q is."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, counted_sgd, divisor, fitting, with_loss_received
from fedjax_lite.base import Aggregator, Algorithm, Number, Server
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.model import refuse_statistics
from fedjax_lite.refuse import is_number, positive
from fedjax_lite.schedules import Scheduled
from fedjax_lite.tree import squared_norm
from fedjax_lite.work import sgd_work

LEAST = 1e-10  # added to a client's loss, which may be 0


def qfedavg(
    loss_fn: LossFn,
    *,
    batches: Batches,
    population: int,
    q: Number,
    learning_rate: Any,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""q-FedAvg: steps toward a small mean of the clients' losses to the power q + 1.

    L = 1 / eta;  w_k = L (x - y_k);  D_k = F_k(x)^q w_k;  h_k = q F_k(x)^(q-1) |w_k|^2 + L F_k(x)^q;
    x <- x - eta_g sum_S D_k / sum_S h_k.

    F_k(x) is the mean loss of the model as received over all of the client's examples, in a pass before training. With q = 0 this is
    FedAvg with uniform weights.

    Args:
        q: at least 0, how much fairness counts; the paper tries 0.001 to 5.
        learning_rate: eta, above 0; number, tracer or `fl.on_round(schedule)`: a round has one L.
        aggregator: of messages {"params": -D_k, "step": h_k}, `fl.aggregators.mean()` by default.
        server_learning_rate: eta_g, 1 in the paper.
        loss_fn, batches, population, uplink, engine: as in `fedavg`; the losses must not be negative.

    Raises:
        ValueError: for a negative q, a rate that is 0 or changes within a round, a server rate that is not positive, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([-4.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.qfedavg(loss_fn, learning_rate=1.0, batches=fl.Batches(None), population=2, q=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # F = 2 and 8: (2 * 2 - 8 * 4) / ((4 + 2) + (16 + 8))
    -0.9333

    Source: Li, Sanjabi, Beirami, Smith 2020, "Fair resource allocation in federated learning", algorithm 2; 1e-10 is added to F_k as in
    the code that the authors released.
    """
    positive("qfedavg", "q", q, or_zero=True)
    if isinstance(learning_rate, Scheduled) and learning_rate.clock != "round":
        raise ValueError(f"qfedavg: L = 1 / learning_rate is one for a round, so give fl.on_round, not {learning_rate.clock!r}")
    if is_number(learning_rate):
        positive("qfedavg", "learning_rate", learning_rate)
    aggregator = fitting("qfedavg", aggregator, mean(), reports="their losses, in h_k,")
    average = averaging("qfedavg", server_learning_rate)
    sgd = with_loss_received(sgd_work(loss_fn, counted_sgd, learning_rate=learning_rate, initial_loss="pass"))

    def finish(shared, own, carry, client):
        message, own, metrics = sgd.finish(shared, own, carry, client)
        lipschitz = client.steps / divisor(carry.work.optimizer.total)
        loss, w = message["loss"] + LEAST, jax.tree.map(lambda moved: lipschitz * moved, message["params"])
        step = q * loss ** (q - 1) * squared_norm(w) + lipschitz * loss**q
        return {"params": jax.tree.map(lambda x: (loss**q * x).astype(x.dtype), w), "step": step}, own, metrics

    def update(aggregate, state, info):
        step = jnp.where(aggregate["step"] > 0, aggregate["step"], 1)  # 0 where no message arrived
        return average.update(jax.tree.map(lambda x: x / step, aggregate["params"]), state, info)

    def init(params):
        refuse_statistics("qfedavg", params, "steps are divided by a bound on curvature")
        return average.init(params)

    return federate(
        sgd._replace(finish=finish), aggregator, Server(init, average.broadcast, update),
        batches=batches._replace(before=1), population=population, uplink=uplink, engine=engine,
    )  # fmt: skip
