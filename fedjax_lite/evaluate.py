"""Evaluation of a model on held-out examples: over all of them, and client by client."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedjax_lite.base import Mean, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.engine import devices, placement
from fedjax_lite.metrics import SPREAD, TEST, lower_is_better
from fedjax_lite.models.loss_fn import LossFn, values_of
from fedjax_lite.refuse import integer
from fedjax_lite.tree import take, zero_where_not, zeros

__all__ = ["evaluate", "summarize"]

DECILES = np.arange(10, 100, 10)
FEW = 20  # a spread over fewer clients lists each client's value, over more it has deciles


def evaluate(loss_fn: LossFn, params: Tree, data: FederatedData, *, batch: int = 1024) -> dict[str, Mean]:
    """Sum and count the loss and every metric of `loss_fn`, one row a client; pure, for use inside compiled programs.

    Args:
        loss_fn: as given to client work; called with key None. A batch holds examples of many clients.
        params: the model.
        data: the examples; clients without any have count 0.
        batch: examples that go through the model at once.

    Returns:
        {"loss": Mean, ...} with leaves `[population]`. Summed over axis 0 they are the result over all examples.

    Raises:
        ValueError: no examples at all, batch below 1, a loss_fn that does not return one value an example.

    >>> from fedjax_lite.data.federated import FederatedData
    >>> data = FederatedData.from_clients([{"x": np.array([1.0, 3.0])}, {"x": np.array([5.0])}])
    >>> evaluate(lambda params, batch, key: batch["x"] - params, 1.0, data)["loss"].value().tolist()
    [1.0, 4.0]
    """
    return devices.sum_pieces(partial(_sums, loss_fn), (params, data), _batches(data, batch, placement.device_count()))


def evaluate_apart(loss_fn: LossFn, params: Tree, data: FederatedData, *, batch: int = 1024) -> dict[str, Mean]:
    """Evaluate, as `evaluate` does, data from `placement.split`, of which each device has its own clients."""

    def on_device(params, data):
        return _sums(loss_fn, (params, data), _batches(data, batch, 1))

    return devices.map_pieces(on_device, params, data)


def _batches(data: FederatedData, batch: int, multiple: int) -> Array:
    """Return rows of examples in batches `[batches, batch]`, `batches` a multiple of `multiple`; rows past the end fill up."""
    examples = int(jax.tree.leaves(data.examples)[0].shape[0])
    integer("evaluate", "batch", batch, 1)
    if not examples:
        raise ValueError("evaluate needs at least one example, got none")
    batch = min(batch, examples)
    batches = -(-examples // (batch * multiple)) * multiple
    return jnp.arange(batches * batch).reshape(-1, batch)


def _sums(loss_fn: LossFn, operands: tuple[Tree, FederatedData], rows: Array) -> dict[str, Mean]:
    """Sum losses and metrics over the examples in `rows` `[batches, batch]`, client by client."""

    def of_batch(params, data, index):
        # A row past the last example has no client, so the sum drops its values.
        owner = jnp.searchsorted(data.start + data.size, index, side="right")
        values = values_of(loss_fn, params, take(data.examples, index), None, owner < data.population)
        return jax.tree.map(lambda value: jax.ops.segment_sum(value, owner, data.population), values)

    def add(totals, index):
        # Batch by batch: one long float32 sum over millions of examples would be off by percents. Without the barrier XLA
        # would join the batches into one sum again, adding each example to the total.
        return jax.tree.map(jnp.add, totals, jax.lax.optimization_barrier(of_batch(*operands, index))), None

    return jax.lax.scan(add, zeros(jax.eval_shape(of_batch, *operands, rows[0])), rows)[0]


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
        ValueError: for another number of models than of clients, and numbers below 1.

    >>> data = FederatedData.from_clients([{"x": np.ones(3)}, {"x": np.full(2, 5.0)}])
    >>> evaluate_each(lambda params, batch, key: (batch["x"] - params) ** 2, jnp.array([1.0, 3.0]), data)["loss"].value().tolist()
    [0.0, 4.0]
    """
    integer("evaluate_each", "batch", batch, 1)
    integer("evaluate_each", "lanes", lanes, 1)
    if not callable(models) and (number := jax.tree.leaves(models)[0].shape[0]) != data.population:
        raise ValueError(f"evaluate_each: {number} models for {data.population} clients: give one for each")
    model_of = models if callable(models) else partial(take, models)
    batch, lanes = min(batch, data.largest), min(lanes, data.population)

    def of_client(k, position):
        """Sum over one batch of client k; positions past its last example count nothing."""
        rows = data.start[k] + jnp.minimum(position, jnp.maximum(data.size[k] - 1, 0))
        mask = position < data.size[k]
        values = values_of(loss_fn, model_of(k), take(data.examples, rows), None, mask)
        return jax.tree.map(lambda value: jnp.sum(jnp.where(mask, value, 0)), values)

    def of_lanes(ids):
        def add(i, totals):
            more = jax.vmap(of_client, (0, None))(ids, i * batch + jnp.arange(batch))
            return jax.tree.map(jnp.add, totals, more)

        batches = jnp.max((data.size[ids] + batch - 1) // batch)
        return jax.lax.fori_loop(0, batches, add, zeros(jax.eval_shape(jax.vmap(of_client, (0, None)), ids, jnp.arange(batch))))

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

    >>> data = FederatedData.from_clients([{"x": np.ones(3)}, {"x": np.full(2, 5.0)}])
    >>> squares, central = lambda params, batch, key: (batch["x"] - params) ** 2, data.from_clients([{"x": np.ones(1)}])
    >>> [evaluate_models(squares, jnp.array([1.0, 3.0]).__getitem__, data, test)["loss"].value().tolist() for test in (data, central)]
    [[0.0, 4.0], [0.0, 4.0]]
    """
    if held_out.population == data.population:
        return zero_where_not(data.size > 0, evaluate_each(loss_fn, models, held_out))
    each = jax.lax.map(lambda id: jax.tree.map(jnp.sum, evaluate(loss_fn, models(id), held_out)), jnp.arange(data.population))
    return zero_where_not(data.size > 0, each)


def summarize(sums: dict[str, Mean], prefix: str = TEST, best: Mapping[str, str] | None = None) -> dict[str, object]:
    """Summarize an evaluation on the host: global values, and their spread over clients.

    Args:
        sums: from `evaluate`.
        prefix: put before each metric's name.
        best: metric -> "min" or "max", where its name does not tell; by default a loss, an error or a norm has "min".

    Returns:
        {"test_loss": float, ..., "test_clients": {"loss": {"mean", "std", "deciles" (10 % to 90 %, interpolated between two clients),
        "worst_decile"}, ...}}; of fewer than 20 clients "values", each client's from the lowest on, instead of "deciles".
        A global value is sum total / sum count, None where no example was counted. A metric's spread is over the clients with a count
        above 0, at least two; "worst_decile" is the mean over the worst tenth of these clients (rounded up),
        worst being the highest where lower is better, else the lowest.

    >>> sums = {"loss": Mean(np.array([2.0, 9.0]), np.array([2, 3]))}
    >>> summarize(sums)["test_loss"], summarize(sums)["test_clients"]["loss"]["mean"]
    (2.2, 2.0)
    """
    summary: dict[str, object] = {}
    spread = {}
    for name, (total, count) in jax.tree.map(lambda x: np.asarray(x, np.float64), sums).items():
        summary[prefix + name] = float(total.sum() / count.sum()) if count.sum() > 0 else None
        each = np.sort(total[count > 0] / count[count > 0])
        if len(each) > 1:
            spread[name] = _spread(each, lower_is_better(name, (best or {}).get(name)))
    return summary | ({prefix + SPREAD: spread} if spread else {})


def _spread(each: np.ndarray, lower: bool) -> dict[str, object]:
    """Describe the distribution over clients of a metric's sorted values `each`."""
    worst = -(-len(each) // 10)
    with np.errstate(invalid="ignore"):  # a model that has diverged has infinite losses
        return {
            "mean": float(each.mean()),
            "std": float(each.std()),
            **({"values": each.tolist()} if len(each) < FEW else {"deciles": np.percentile(each, DECILES).tolist()}),
            "worst_decile": float((each[-worst:] if lower else each[:worst]).mean()),
        }
