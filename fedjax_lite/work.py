"""Local training by gradient steps."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.base import HIGH_STREAM, ClientWork, Hidden, Mean, Number, Tree
from fedjax_lite.models.loss_fn import LossFn, bound, mean_loss
from fedjax_lite.optimizer_state import needs_value, refuse_restarting
from fedjax_lite.refuse import inexact_leaves
from fedjax_lite.schedules import Clock, Scheduled, transformation_at

__all__ = ["sgd_work"]


class Own(NamedTuple):
    """The own row of `sgd_work`; work that wraps it may have a row with this field and more."""

    steps: Tree = ()  # local steps in earlier rounds, where a schedule counts them


class Carry(NamedTuple):
    """The carry of `sgd_work`."""

    params: Tree
    optimizer: Tree


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
            count. A loss that looks across the batch (a batch mean, batch normalisation, a contrastive term) would see the copies: it
            takes a further argument `mask`, bool `[batch]`, which is False for copies, and leaves them out itself. In the same way it
            may take `shared`, `own`, `client`, `row`, `round` and `epoch`: the server's broadcast, the client's own row, the client,
            the examples' rows among the client's, and the time. In evaluation these arguments are None.
        optimizer: an optax transformation (`optax.sgd(0.1)`), or with `learning_rate` its factory (`optax.sgd`). Its state
            starts anew in every round. A transformation before it that corrects the gradient is given the keywords `shared`, `own`,
            `client`, `round` and `key`, and `value`, the batch's loss.
        learning_rate: number, tracer, or a schedule with its clock: `fl.on_round(s)`, `fl.on_step(s)`, `fl.on_client_step(s)`.
        epoch_decay: factor on the updates after each local epoch within a round.
        initial_loss: how the metric "initial_loss", the loss of the model as received, is measured. "batch": on each
            client's first batch, at no cost. "epoch": on every example of its first epoch, one more forward pass a step.
        gradient_norm: also report "gradient_norm", the mean norm of the clients' first gradients.
        precision: the format of the loss and its gradient. "float32": as the parameters and examples are; "bfloat16":
            on copies of both in that format, while parameters, gradients, losses and every sum over clients stay as they are.
        gradients: `(loss_fn, params, batch, key) -> ((loss, sums), gradient)` in place of the gradient of the mean loss, for
            instance `fl.privacy.record_level(...)`; `sums` has a `fl.Mean` for "loss" and each metric, over the real examples.

    Returns:
        A `ClientWork` whose metrics are "loss" (over the examples of all local steps), "initial_loss" and the metrics of loss_fn.

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
        return Own(kept(jnp.int32(0) if counts_steps else ()))

    def kept(steps):
        return Hidden(steps) if hides else steps

    def steps_before(own):
        return own.steps.kept if hides else own.steps

    def start(shared, own, client):
        del own, client
        inexact_leaves("params", shared.params)
        state = optimizer_at(Clock(0, 0, 0)).init(shared.params)
        refuse_restarting(state)
        return Carry(shared.params, state)

    def step(shared, own, carry, batch):
        after, sums = stepped(shared, own, carry, batch)
        if batch.learning is True:
            return after, sums
        return tree.where(batch.learning, after, carry), tree.zero_where_not(batch.learning, sums)

    def stepped(shared, own, carry, batch):
        key = jax.random.fold_in(batch.client.key, batch.step)
        loss_here = bound(loss_fn, shared=shared, own=own)
        (loss, sums), gradient = gradients(loss_here, carry.params, batch, key)
        clock = Clock(batch.round, batch.step, steps_before(own) + batch.step if counts_steps else None)
        beside = {"shared": shared, "own": own, "client": batch.client, "round": batch.round, "key": jax.random.fold_in(key, HIGH_STREAM)}
        beside |= {} if hides else {"value": loss}
        with needs_value("sgd_work", not hides):
            updates, state = optimizer_at(clock).update(gradient, carry.optimizer, carry.params, **beside)
        decay = 1.0 if isinstance(epoch_decay, float | int) and epoch_decay == 1 else epoch_decay**batch.epoch
        updates = optax.tree.scale(shared.rate * decay, updates)
        params = optax.apply_updates(carry.params, updates)

        first = batch.step == 0
        if initial_loss == "epoch":
            _, received = mean_loss(loss_here, shared.params, batch, key)
            sums["initial_loss"] = _if(batch.epoch == 0, received["loss"])
        else:
            sums["initial_loss"] = _if(first, sums["loss"])
        if gradient_norm:
            norm = optax.tree.norm(gradient)
            sums["gradient_norm"] = _if(first, Mean(norm, jnp.ones_like(norm)))
        return Carry(params, state), sums

    def finish(shared, own, carry, client):
        steps = steps_before(own) + client.steps if counts_steps else ()
        return optax.tree.sub(carry.params, shared.params), Own(kept(steps)), {}

    return ClientWork(init, start, step, finish)


def _in_bfloat16(loss_fn: LossFn) -> LossFn:
    """Let `loss_fn` compute on bfloat16 copies of parameters and examples."""

    def half(tree):
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    @wraps(loss_fn)
    def in_half(params, batch, key, **beside):
        return loss_fn(half(params), half(batch), key, **beside)

    return in_half


def _if(condition: Array, mean: Mean) -> Mean:
    """Return `mean` where `condition` holds, else a `Mean` that counts nothing."""
    return jax.tree.map(lambda x: jnp.where(condition, x, 0), mean)
