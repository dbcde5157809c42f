"""Evaluation of a model a client, each on its client's examples."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedjax_lite.base import Mean, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.evaluation.evaluate import evaluate
from fedjax_lite.models.loss_fn import LossFn, values_of
from fedjax_lite.refuse import integer
from fedjax_lite.tree import take, zero_where_not, zeros

__all__ = ["evaluate_each", "evaluate_models"]


def evaluate_each(
    loss_fn: LossFn, models: Tree | Callable[[Array], Tree], data: FederatedData, *, batch: int = 256, lanes: int = 16
) -> dict[str, Mean]:
    """Sum and count the loss and every metric of client k's own model on client k's examples, one row a client; pure.

    Args:
        loss_fn: as given to client work; called with key None.
        models: a function of a client's id, such as `lambda id: algorithm.models(state, id)`, which is called for a few clients at a
            time; or a stack `[population, ...]`, such as `algorithm.models(state)`.
        data: the examples, of the same population; clients without any have count 0.
        batch: examples of a client that go through its model at once.
        lanes: clients that are evaluated at once; their models and batches take memory together.

    Returns:
        {"loss": Mean(total [population], count [population]), ...}, for `fl.summarize`.

    Raises:
        ValueError: for no models, another number of models than of clients, and numbers below 1.

    >>> data = FederatedData.from_clients([{"x": jnp.ones(3)}, {"x": jnp.full(2, 5.0)}])
    >>> evaluate_each(lambda params, batch, key: (batch["x"] - params) ** 2, jnp.array([1.0, 3.0]), data)["loss"].value().tolist()
    [0.0, 4.0]
    """
    if models is None:
        raise ValueError(
            "evaluate_each: models is None, since this algorithm's clients have no models of their own: evaluate its params(state) with "
            "fl.evaluate, or what each client makes of them with fl.fine_tuned"
        )
    integer("evaluate_each", "batch", batch, 1)
    integer("evaluate_each", "lanes", lanes, 1)
    if not callable(models) and (number := jax.tree.leaves(models)[0].shape[0]) != data.population:
        raise ValueError(f"evaluate_each: {number} models for {data.population} clients: give one for each")
    model_of = models if callable(models) else partial(take, models)
    batch, lanes = min(batch, data.largest), min(lanes, data.population)

    def of_client(k, model, position):
        """Sum over one batch of client k; positions past its last example count nothing."""
        rows = data.start[k] + jnp.minimum(position, jnp.maximum(data.size[k] - 1, 0))
        mask = position < data.size[k]
        values = values_of(loss_fn, model, take(data.examples, rows), None, mask)
        return jax.tree.map(lambda value: jnp.sum(jnp.where(mask, value, 0)), values)

    def of_lanes(ids):
        of_batch = partial(jax.vmap(of_client, (0, 0, None)), ids, jax.vmap(model_of)(ids))
        batches = jnp.max((data.size[ids] + batch - 1) // batch)
        nothing = zeros(jax.eval_shape(of_batch, jnp.arange(batch)))
        add = lambda i, totals: jax.tree.map(jnp.add, totals, of_batch(i * batch + jnp.arange(batch)))  # noqa: E731
        return jax.lax.fori_loop(0, batches, add, nothing)

    # Clients of like sizes side by side, so that none waits long for another; the last lanes repeat the last client.
    order = jnp.argsort(-data.size, stable=True)
    chunks = -(-data.population // lanes)
    sums = jax.lax.map(of_lanes, order[jnp.minimum(jnp.arange(chunks * lanes), data.population - 1)].reshape(chunks, lanes))
    back = jnp.argsort(order, stable=True)
    return jax.tree.map(lambda x: x.reshape(-1)[back], sums)


def evaluate_models(loss_fn: LossFn, models: Callable[[Array], Tree], data: FederatedData, held_out: FederatedData) -> dict[str, Mean]:
    """Evaluate each client's own model, on its own held-out examples, or on all of them where no client holds them; one row a client.

    Args:
        loss_fn, models: as in `evaluate_each`, a function.
        data: the training population; models of clients without examples do not count.
        held_out: of the same population, or of another, such as one central test set.

    >>> data = FederatedData.from_clients([{"x": jnp.ones(3)}, {"x": jnp.full(2, 5.0)}])
    >>> squares, central = lambda params, batch, key: (batch["x"] - params) ** 2, data.from_clients([{"x": jnp.ones(1)}])
    >>> [evaluate_models(squares, jnp.array([1.0, 3.0]).__getitem__, data, test)["loss"].value().tolist() for test in (data, central)]
    [[0.0, 4.0], [0.0, 4.0]]
    """
    if held_out.population == data.population:
        return zero_where_not(data.size > 0, evaluate_each(loss_fn, models, held_out))
    each = jax.lax.map(lambda id: jax.tree.map(jnp.sum, evaluate(loss_fn, models(id), held_out)), jnp.arange(data.population))
    return zero_where_not(data.size > 0, each)
