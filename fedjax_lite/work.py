"""Local training by gradient steps."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from fedjax_lite.base import HIGH_STREAM, Batch, ClientWork, Hidden, Key, Mean, Number, Tree
from fedjax_lite.metrics import OF_WORK, check_names
from fedjax_lite.optimizer_state import needs_value, refuse_restarting
from fedjax_lite.refuse import inexact_leaves
from fedjax_lite.schedules import Clock, Scheduled, transformation_at

__all__ = ["sgd_work"]

# params, batch, key -> losses [batch], or (losses, {name: values [batch]}); a loss or a metric over some examples only is a
# fl.Mean(total [batch], count [batch]). One that takes an argument `mask` is given it by keyword.
LossFn = Callable[..., Any]


class _Carry(NamedTuple):
    params: Tree
    optimizer: Tree
    key: Key
    rate: Number  # the server's factor on the learning rate
    received: Tree  # the model as the server sent it
    steps_before: Tree  # the client's steps in earlier rounds, where a schedule counts them


def sgd_work(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    learning_rate: Any = None,
    epoch_decay: Number = 1.0,
    initial_loss: str = "batch",
    gradient_norm: bool = False,
    precision: str = "float32",
    gradients: Callable | None = None,
) -> ClientWork:
    r"""Minibatch steps of any optax optimizer on the client's examples; the message is the change of the model.

    y^0 = x;  y^{j+1} = y^j + U(grad of the mean loss over the batch's real examples);  message = y^K - x.

    Args:
        loss_fn: `(params, batch, key) -> losses [batch]`, or `(losses, {name: values [batch]})`. Never reduce over the
            batch: the mean over real examples is taken here, so a short last batch can't be got wrong. In evaluation it
            is called with key None. A short last batch is filled up with copies of the client's examples, whose losses do not
            count. One that looks across the batch (a batch mean, batch normalisation, a contrastive term) would see them: it
            takes a further argument `mask`, bool `[batch]`, which is False for these, and leaves them out itself.
        optimizer: an optax transformation (`optax.sgd(0.1)`), or with `learning_rate` its factory (`optax.sgd`). Its state
            starts anew in every round.
        learning_rate: number, tracer, or a schedule with its clock: `fl.on_round(s)`, `fl.on_step(s)`, `fl.on_client_step(s)`.
        epoch_decay: factor on the updates after each local epoch within a round.
        initial_loss: how the metric "initial_loss", the loss of the model as received, is measured. "batch": on each
            client's first batch, at no cost. "epoch": on every example of its first epoch, one more forward pass a step.
        gradient_norm: also report "gradient_norm", the mean norm of the clients' first gradients.
        precision: what the loss and its gradient are computed in. "float32": as the parameters and examples are; "bfloat16":
            on copies of both in that format, while parameters, gradients, losses and every sum over clients stay as they are.
        gradients: `(loss_fn, params, batch, key) -> ((loss, sums), gradient)` in place of the gradient of the mean loss, for
            instance `fl.privacy.record_level(...)`; `sums` has a `fl.Mean` for "loss" and each metric, over the real examples.

    Returns:
        A `ClientWork` whose metrics are "loss" (over the examples of all local steps), "initial_loss" and what loss_fn reports.

    Raises:
        ValueError: for a schedule that would restart every round without saying so, or a loss of the wrong shape.

    >>> work = sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2, optax.sgd(0.1))

    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data", algorithm 1.
    """
    if not callable(loss_fn):
        raise TypeError(f"sgd_work: loss_fn must be a function (params, batch, key) -> losses [batch], got {loss_fn!r}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f'precision must be "float32" or "bfloat16", got {precision!r}')
    if precision == "bfloat16":
        loss_fn = _in_bfloat16(loss_fn)
    if initial_loss not in ("batch", "epoch"):
        raise ValueError(f'initial_loss must be "batch" or "epoch", got {initial_loss!r}')
    if isinstance(epoch_decay, float | int) and not 0 < epoch_decay <= 1:
        raise ValueError(f"epoch_decay must be in (0, 1], got {epoch_decay}")
    optimizer_at = transformation_at(optimizer, learning_rate)
    counts_steps = isinstance(learning_rate, Scheduled) and learning_rate.clock == "client_step"
    hides = getattr(gradients, "private", False)
    gradients = jax.value_and_grad(mean_loss, argnums=1, has_aux=True) if gradients is None else gradients

    def init(params, key):
        del params, key
        return kept(jnp.int32(0) if counts_steps else ())

    def kept(steps):
        return Hidden(steps) if hides else steps

    def start(shared, own, client):
        inexact_leaves("params", shared.params)
        state = optimizer_at(Clock(0, 0, 0)).init(shared.params)
        refuse_restarting(state)
        received = shared.params if initial_loss == "epoch" else ()
        return _Carry(shared.params, state, client.key, shared.rate, received, own.kept if hides else own)

    def step(carry, batch):
        key = jax.random.fold_in(carry.key, batch.step)
        (loss, sums), gradient = gradients(loss_fn, carry.params, batch, key)
        clock = Clock(batch.round, batch.step, carry.steps_before + batch.step if counts_steps else None)
        extra = {} if hides else {"value": loss}
        with needs_value("sgd_work", not hides):
            updates, state = optimizer_at(clock).update(
                gradient, carry.optimizer, carry.params, round=batch.round, key=jax.random.fold_in(key, HIGH_STREAM), **extra
            )
        decay = 1.0 if isinstance(epoch_decay, float | int) and epoch_decay == 1 else epoch_decay**batch.epoch
        updates = optax.tree.scale(carry.rate * decay, updates)
        params = optax.apply_updates(carry.params, updates)

        first = batch.step == 0
        if initial_loss == "epoch":
            _, received = mean_loss(loss_fn, carry.received, batch, key)
            sums["initial_loss"] = _if(batch.epoch == 0, received["loss"])
        else:
            sums["initial_loss"] = _if(first, sums["loss"])
        if gradient_norm:
            norm = optax.tree.norm(gradient)
            sums["gradient_norm"] = _if(first, Mean(norm, jnp.ones_like(norm)))
        return carry._replace(params=params, optimizer=state), sums

    def finish(shared, carry, client):
        own = carry.steps_before + client.steps if counts_steps else ()
        return optax.tree.sub(carry.params, shared.params), kept(own), {}

    return ClientWork(init, start, step, finish)


def told(loss_fn: LossFn, params: Tree, examples: Tree, key: Key | None, mask: Array | None) -> Any:
    """What a loss function says of a batch; it is given the mask where it asks for it."""
    try:
        return loss_fn(params, examples, key, **({"mask": mask} if asks_mask(loss_fn) else {}))
    except KeyError as error:
        if not isinstance(examples, dict) or error.args[0] in examples:
            raise
        raise ValueError(f"loss_fn asks for the leaf {error}, and the examples have {', '.join(map(repr, examples))}") from error


def asks_mask(function: Callable) -> bool:
    """Whether a function has an argument `mask`; one without a signature, as some of C, has none."""
    try:
        return "mask" in inspect.signature(function).parameters
    except ValueError:
        return False


def values_of(loss_fn: LossFn, params: Tree, examples: Tree, key: Key | None, mask: Bool[Array, " batch"]) -> dict[str, Mean]:
    """The loss and every metric of each example, `[batch]` each, in at least float32: their sums drown in half precision."""
    shape = mask.shape
    losses, values = losses_and_metrics(told(loss_fn, params, examples, key, mask))
    check_names(values, "loss_fn", OF_WORK)
    kind = jnp.result_type(jax.tree.leaves(losses)[0])
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"loss_fn must return floating-point losses, got {kind}: whole numbers have no gradient")
    values = {"loss": losses, **values}
    for name, value in values.items():
        for part in value if isinstance(value, Mean) else (value,):
            if jnp.shape(part) != shape:
                raise ValueError(
                    f"loss_fn must return one {name} an example, shape {shape}, got {jnp.shape(part)}: "
                    "do not reduce over the batch; masking and the mean are taken by the library"
                )
    return {name: _wide_mean(value) for name, value in values.items()}


def losses_and_metrics(output: Any) -> tuple[Any, dict[str, Any]]:
    """What a loss function returned: its losses, or a `Mean` of them, and its metrics.

    Raises:
        TypeError: for anything else.
    """
    bare = isinstance(output, Mean) or not isinstance(output, tuple)
    losses, values = (output, {}) if bare else output if len(output) == 2 else (None, None)
    if not isinstance(values, dict) or not (isinstance(losses, Mean) or hasattr(losses, "shape")):
        raise TypeError(
            f"loss_fn must return losses [batch], or (losses, {{name: values [batch]}}), got {jax.tree.map(jnp.shape, output)}: "
            "give each metric a name"
        )
    return losses, values


def _wide_mean(value: Any) -> Mean:
    total, count = value if isinstance(value, Mean) else (value, None)
    total = jnp.asarray(total, jnp.promote_types(jnp.result_type(total), jnp.float32))
    return Mean(total, jnp.ones_like(total) if count is None else jnp.asarray(count, total.dtype))


def mean_loss(loss_fn: LossFn, params: Tree, batch: Batch, key: Key) -> tuple[Array, dict[str, Mean]]:
    """The mean loss of a batch's real examples, and the sums behind it and behind every metric."""
    values = values_of(loss_fn, params, batch.examples, key, batch.mask)
    sums = jax.tree.map(lambda value: jnp.sum(jnp.where(batch.mask, value, 0)), values)
    total, count = sums["loss"]
    return total / jnp.where(count > 0, count, 1), sums


def _in_bfloat16(loss_fn: LossFn) -> LossFn:
    def half(tree):
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    @wraps(loss_fn)
    def in_half(params, batch, key, **mask):
        return loss_fn(half(params), half(batch), key, **mask)

    return in_half


def _if(condition: Array, mean: Mean) -> Mean:
    return jax.tree.map(lambda x: jnp.where(condition, x, 0), mean)
