"""Agnostic FedAvg: the model is fitted to the mixture of domains that is the worst for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_lite.aggregators.non_finite import screen
from fedjax_lite.aggregators.sums import mix
from fedjax_lite.algorithms.optimisation.pieces import averaging, with_loss_received
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import positive
from fedjax_lite.tree import zero_where_not
from fedjax_lite.work import sgd_work


def agnostic_fedavg(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    gamma: Number,
    domains: Any = None,
    update: str = "exponentiated",
    learning_rate: Any = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Agnostic FedAvg: min over x, max over lambda of sum_j lambda_j F_j(x), F_j the loss of domain j, lambda in the simplex.

    x <- x + eta_g sum_S w_k (y_k - x) / sum_S w_k,  w_k = lambda_j n_k / n_j,  j = k's domain, n_j the cohort's examples of it;
    "exponentiated": lambda_j <- lambda_j exp(gamma F_j(x)) / sum_i lambda_i exp(gamma F_i(x));
    "projected":     lambda <- projection on the simplex of lambda + gamma F(x).

    F_j(x) is the mean loss of the model as received over all examples of the domain's clients in the cohort, in a pass before training;
    0 for a domain without any. Both x and lambda move by the old lambda, which starts uniform.

    Args:
        gamma: above 0, the step size of lambda.
        domains: whole numbers from 0, `[population]`, the domain of each client; by default each client is a domain of its own.
        update: "exponentiated", or "projected", that of AFL.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`. The rule is the
            method's own: it must see all messages of a cohort together, since what a client weighs is known from all.

    Returns:
        An `Algorithm` that also reports "largest_lambda"; lambda is `state.aggregator`. Where x swings about the saddle point, the mean
        of all x is near it.

    Raises:
        ValueError: for a gamma or a server rate that is not positive, domains of another shape or kind, another update.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([x])} for x in (0.0, 0.0, 0.0, 4.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> domains, fitted = np.array([0, 0, 0, 1]), dict(batches=fl.Batches(None), population=4, gamma=0.1)
    >>> algorithm = fl.algorithms.agnostic_fedavg(loss_fn, optax.sgd(0.1), domains=domains, **fitted)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=300, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 2), state.aggregator.round(2).tolist()  # equally far from both; FedAvg ends at 1
    (2.0, [0.5, 0.5])

    Source: Ro, Chen, Mathews, Mohri, Suresh 2021, "Communication-efficient agnostic federated averaging", with the examples of the
    cohort itself for their mean over earlier rounds; "projected": Mohri, Sivek, Suresh 2019, "Agnostic federated learning".
    """
    positive("agnostic_fedavg", "gamma", gamma)
    if update not in MOVES:
        raise ValueError(f"agnostic_fedavg: update must be {' or '.join(map(repr, MOVES))}, got {update!r}")
    domains = np.arange(population) if domains is None else np.asarray(domains)
    if domains.shape != (population,) or not np.issubdtype(domains.dtype, np.integer) or domains.min() < 0:
        raise ValueError(
            f"agnostic_fedavg: domains must be whole numbers from 0, one for each of {population} clients, got {domains.dtype} "
            f"{list(domains.shape)}: np.unique(names, return_inverse=True)[1] numbers them"
        )
    return federate(
        with_loss_received(sgd_work(loss_fn, optimizer, learning_rate=learning_rate, initial_loss="pass")),
        _worst_mixture(jnp.asarray(domains, jnp.int32), int(domains.max()) + 1, gamma, MOVES[update]),
        averaging("agnostic_fedavg", server_learning_rate),
        batches=batches._replace(before=1),
        population=population,
        uplink=uplink,
        engine=engine,
    )


def _worst_mixture(domains: Any, number: int, gamma: Number, move: Any) -> Aggregator:
    """Weigh clients by their domains' lambda, and move lambda along the domains' losses."""

    def finish(part, weights, key):
        del key
        messages, cohort = part
        messages, cohort, dropped = screen(messages, cohort, "drop")
        domain = jnp.take(domains, cohort.id, mode="clip")
        held = jnp.where(cohort.weight > 0, cohort.weight * cohort.size, 0)

        def in_domains(each):
            return jax.ops.segment_sum(each, domain, number)

        examples = jnp.maximum(in_domains(held), 1)
        each = (weights / examples)[domain] * held
        total = jnp.sum(each)
        change = mix(each / jnp.where(total > 0, total, 1), messages["params"], cohort.weight > 0)
        losses = in_domains(held * zero_where_not(cohort.weight > 0, messages["loss"])) / examples
        weights = move(weights, gamma * losses).astype(weights.dtype)
        return change, weights, {"non_finite": dropped, "largest_lambda": jnp.max(weights)}

    first = jnp.full(number, 1 / number, jnp.result_type(float))
    return Aggregator(lambda message: first, lambda messages, cohort, state: (messages, cohort), finish, additive=False, weighs=True)


MOVES = {  # lambda and gamma F -> lambda
    "exponentiated": lambda weights, step: jax.nn.softmax(jnp.log(weights) + step),
    "projected": lambda weights, step: optax.projections.projection_simplex(weights + step),
}
