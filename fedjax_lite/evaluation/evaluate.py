"""Evaluation of one model on the examples of all clients, client by client."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedjax_lite.base import Mean, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.engine import devices, placement
from fedjax_lite.models.loss_fn import LossFn, values_of
from fedjax_lite.refuse import integer
from fedjax_lite.tree import take, zeros

__all__ = ["evaluate", "evaluate_apart"]


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

    >>> data = FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([5.0])}])
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
