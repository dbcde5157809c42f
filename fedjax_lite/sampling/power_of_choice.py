"""Power of choice: of some candidates the clients with the largest losses take part."""

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Whole
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count
from fedjax_lite.sampling.losses import client_losses, losses_by
from fedjax_lite.sampling.participation import Remembering
from fedjax_lite.sampling.samplers import weighted
from fedjax_lite.tree import take

__all__ = ["power_of_choice"]


def power_of_choice(loss_fn: LossFn, clients: Whole, candidates: Whole, examples: Whole | None = None) -> Remembering:
    """Of `candidates` clients, drawn by their sizes, the `clients` on whose examples the global model has the largest loss.

    Candidates are drawn without replacement with probability n_k / n (`fl.sampling.weighted`); each evaluates the global model on its
    examples and sends one number; of equal losses the candidate drawn first takes part. The choice is biased on purpose, towards clients
    that the model serves badly: nothing makes it unbiased, no accountant covers it, and private aggregators are refused, since losses tell
    of clients' examples what no noise hides.

    Args:
        loss_fn: as given to client work.
        clients: of a round.
        candidates: at least as many; as many means `weighted(clients)`.
        examples: losses over so many of a candidate's examples, at random; by default over all of them.

    Raises:
        ValueError: for fewer candidates than clients, and numbers below 1.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.full(2, x)} for x in (1.0, 2.0, 9.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=1.0, population=3)
    >>> sampler = fl.sampling.power_of_choice(loss_fn, clients=1, candidates=3)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), sampler, rounds=1, key=jax.random.key(0))
    >>> float(algorithm.params(state))
    9.0

    Source: Cho, Wang and Joshi 2020, "Client selection in federated learning", pi_pow-d; with `examples` pi_cpow-d.
    """
    loss_fn, clients = losses_by("power_of_choice", loss_fn), a_count("power_of_choice", "clients", clients)
    candidates = a_count("power_of_choice", "candidates", candidates)
    examples = None if examples is None else a_count("power_of_choice", "examples", examples)
    if candidates < clients:
        raise ValueError(f"power_of_choice: candidates={candidates} are fewer than clients={clients}: raise them")
    drawn_by_size = weighted(candidates)

    def sample(key, sizes, round, memory, demand):
        del demand
        if candidates > sizes.shape[0]:
            raise ValueError(f"power_of_choice: candidates={candidates} are more than the population of {sizes.shape[0]}: lower them")
        return drawn_by_size(key, sizes, round), memory

    def look(params, data, cohort, memory):
        losses, cohort = client_losses(loss_fn, params, data, cohort, examples)
        return _largest(losses.mean, cohort, clients), memory

    return Remembering(lambda sizes: (), sample, look)


def _largest(loss: Any, cohort: Any, clients: int) -> Any:
    """Keep the slots with the largest losses; a loss that is no number counts as the largest, an empty slot as the smallest."""
    there = (cohort.weight > 0) & (cohort.size > 0)
    loss = jnp.where(there, jnp.where(jnp.isnan(loss), jnp.inf, loss), -jnp.inf)
    chosen = take(cohort._replace(weight=jnp.where(there, cohort.weight, 0)), jax.lax.top_k(loss, clients)[1])
    return chosen
