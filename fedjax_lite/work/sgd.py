"""Local training by gradient steps."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.base import Batch, ClientWork, Hidden, Key, Mean, Number, Tree
from fedjax_lite.models.loss_fn import STATISTICS, LossFn, bound, facts_for, loss_and_gradient, mean_loss
from fedjax_lite.models.model import WithStatistics
from fedjax_lite.optimizer_state import needs_value, refuse_common_noise, refuse_restarting
from fedjax_lite.refuse import inexact_leaves
from fedjax_lite.schedules import Clock, Scheduled, transformation_at
from fedjax_lite.streams import HIGH_STREAM

__all__ = ["sgd_work"]


class Own(NamedTuple):
    """The own row of `sgd_work`; work that wraps it may have a row with these fields and more."""

    steps: Tree = ()  # local steps in earlier rounds, where a schedule counts them
    optimizer: Tree = ()  # the optimizer's state, where clients keep it


class Carry(NamedTuple):
    """The carry of `sgd_work`."""

    params: Tree
    optimizer: Tree
    full_gradient: Tree = ()  # where it is asked for, a `Mean` of the gradients in the pass before training


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
    keep_optimizer: bool = False,
    full_gradient: bool = False,
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
            starts anew in every round, unless clients keep it. A transformation before it that corrects the gradient, such as
            `fl.gradient_term(...)`, is given the keywords `shared`, `own`, `client`, `round`, `epoch`, `key` and `value`, the batch's loss.
        learning_rate: number, tracer, or a schedule with its clock: `fl.on_round(s)`, `fl.on_step(s)`, `fl.on_client_step(s)`.
        epoch_decay: factor on the updates after each local epoch within a round.
        initial_loss: how the metric "initial_loss", the loss of the model as received, is measured. "batch": on each
            client's first batch, at no cost. "epoch": on every example of its first epoch, one more forward pass a step. "pass": on
            all of its examples, in a pass before training: `fl.Batches(..., before=1)`.
        gradient_norm: also report "gradient_norm", the mean norm of the clients' first gradients.
        precision: the format of the loss and its gradient. "float32": as the parameters and examples are; "bfloat16":
            on copies of both in that format, while parameters, gradients, losses and every sum over clients stay as they are.
        gradients: `(loss_fn, params, batch, key) -> ((loss, sums), gradient)` in place of the gradient of the mean loss, for
            instance `fl.privacy.record_level(...)`; `sums` has a `fl.Mean` for "loss" and each metric, over the real examples. It may
            take `shared` and `own` as further arguments.
        keep_optimizer: each client keeps its optimizer's state from round to round, moments and counts: a schedule inside the optimizer
            then counts all steps that the client ever took.
        full_gradient: for work that wraps this one: `mean_gradient(carry)` is the gradient at the model as received over all of the
            client's examples, from a pass before training: `fl.Batches(..., before=1)`.

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
    if initial_loss not in ("batch", "epoch", "pass"):
        raise ValueError(f'initial_loss must be "batch", "epoch" or "pass", got {initial_loss!r}')
    if isinstance(epoch_decay, float | int) and not 0 < epoch_decay <= 1:
        raise ValueError(f"epoch_decay must be in (0, 1], got {epoch_decay}")
    hides = getattr(gradients, "private", False)
    gradients = loss_and_gradient if gradients is None else gradients
    counts_steps = isinstance(learning_rate, Scheduled) and learning_rate.clock == "client_step"
    parts = _Parts(
        loss_fn, gradients, transformation_at(optimizer, learning_rate), counts_steps, keep_optimizer, hides,
        epoch_decay, initial_loss, gradient_norm, full_gradient,
    )  # fmt: skip
    return ClientWork(partial(_init, parts), partial(_start, parts), partial(_step, parts), partial(_finish, parts))


class _Parts(NamedTuple):
    """What the local steps are made of."""

    loss_fn: LossFn
    gradients: Callable
    optimizer_at: Callable[[Clock], optax.GradientTransformationExtraArgs]
    counts_steps: bool
    keeps: bool
    hides: bool
    epoch_decay: Number
    initial_loss: str
    gradient_norm: bool
    full_gradient: bool


def _init(parts: _Parts, params: Tree, key: Any) -> Own:
    """Make a client's first own row: a count of steps and an optimizer's state, where these are kept."""
    del key
    state = parts.optimizer_at(Clock(0, 0, 0)).init(params) if parts.keeps else ()
    refuse_common_noise(state, "client optimizer")
    return _own(parts, jnp.int32(0) if parts.counts_steps else (), state)


def _own(parts: _Parts, steps: Tree, optimizer: Tree) -> Own:
    """Make an own row, marked where the work hides the client's data."""
    return Own(Hidden(steps), optimizer and Hidden(optimizer)) if parts.hides else Own(steps, optimizer)


def _kept(row: Tree) -> Tree:
    """Return what is kept in a field of an own row, marked or not."""
    return row.kept if isinstance(row, Hidden) else row


def _start(parts: _Parts, shared: Any, own: Any, client: Any) -> Carry:
    """Begin from the model as received, with a fresh optimizer or the one that the client keeps."""
    del client
    inexact_leaves("params", shared.params)
    if parts.keeps:
        state = _kept(own.optimizer)
    else:
        state = parts.optimizer_at(Clock(0, 0, 0)).init(shared.params)
        refuse_restarting(state)
    nothing = Mean(jax.tree.map(jnp.zeros_like, shared.params), jnp.zeros(())) if parts.full_gradient else ()
    return Carry(shared.params, state, nothing)


def _step(parts: _Parts, shared: Any, own: Any, carry: Carry, batch: Batch) -> tuple[Carry, dict[str, Mean]]:
    """Take a step on a batch; in a pass, where nothing is learned, at most note its gradient and its loss."""
    assert batch.client is not None
    key = jax.random.fold_in(batch.client.key, batch.step)
    loss_here = bound(parts.loss_fn, shared=shared, own=own)
    beside = facts_for(parts.gradients, shared=shared, own=own)
    (loss, sums), gradient = parts.gradients(loss_here, carry.params, batch, key, **beside)
    statistics, sums = sums.get(STATISTICS), {name: value for name, value in sums.items() if name != STATISTICS}
    after = _with_statistics(_moved(parts, shared, own, carry, batch, gradient, loss, key), carry, statistics)
    if parts.gradient_norm:
        norm = optax.tree.norm(gradient)
        sums["gradient_norm"] = _if(batch.step == 0, Mean(norm, jnp.ones_like(norm)))
    received = sums["loss"]
    if parts.initial_loss == "epoch":
        received = _if(batch.epoch == 0, mean_loss(loss_here, shared.params, batch, key)[1]["loss"])
    elif parts.initial_loss == "batch":
        received = _if(batch.step == 0, received)
    if batch.learning is True:
        if parts.full_gradient or parts.initial_loss == "pass":
            which = "full_gradient=True" if parts.full_gradient else 'initial_loss="pass"'
            raise ValueError(f"sgd_work: {which} is measured in a pass before training, and there is none: give fl.Batches(..., before=1)")
        return after, sums | {"initial_loss": received}
    learning = jnp.asarray(batch.learning)
    if parts.full_gradient:
        carry = carry._replace(full_gradient=_add(carry.full_gradient, gradient, jnp.sum(batch.mask)))
    after, sums = tree.where(learning, after, carry), tree.zero_where_not(learning, sums)
    return after, sums | {"initial_loss": _if(~learning if parts.initial_loss == "pass" else learning, received)}


def _moved(parts: _Parts, shared: Any, own: Any, carry: Carry, batch: Batch, gradient: Tree, loss: Array, key: Key) -> Carry:
    """Move the model by one step of the optimizer."""
    clock = Clock(batch.round, batch.step, _kept(own.steps) + batch.step if parts.counts_steps else None)
    beside = {"shared": shared, "own": own, "client": batch.client, "round": batch.round, "epoch": batch.epoch}
    beside["key"] = jax.random.fold_in(key, HIGH_STREAM)
    beside |= {} if parts.hides else {"value": loss}
    with needs_value("sgd_work", not parts.hides):
        updates, state = parts.optimizer_at(clock).update(gradient, carry.optimizer, carry.params, **beside)
    decay = 1.0 if isinstance(parts.epoch_decay, float | int) and parts.epoch_decay == 1 else parts.epoch_decay**batch.epoch
    updates = optax.tree.scale(shared.rate * decay, updates)
    return carry._replace(params=optax.apply_updates(carry.params, updates), optimizer=state)


def _with_statistics(after: Carry, before: Carry, statistics: Tree) -> Carry:
    """Give a model that an optimizer has moved the running statistics of the loss function, by default those of before."""
    if not isinstance(after.params, WithStatistics):
        return after
    then = before.params.statistics
    return after._replace(params=after.params._replace(statistics=then if statistics is None else tree.cast_like(statistics, then)))


def _finish(parts: _Parts, shared: Any, own: Any, carry: Carry, client: Any) -> tuple[Tree, Own, dict[str, Mean]]:
    """Send the change of the model, and keep the count of steps and the optimizer's state."""
    steps = _kept(own.steps) + client.steps if parts.counts_steps else ()
    return optax.tree.sub(carry.params, shared.params), _own(parts, steps, carry.optimizer if parts.keeps else ()), {}


def _in_bfloat16(loss_fn: LossFn) -> LossFn:
    """Let `loss_fn` compute on bfloat16 copies of parameters and examples."""

    def half(tree):
        if isinstance(tree, WithStatistics):  # moving averages would stand still
            return tree._replace(params=half(tree.params))
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    @wraps(loss_fn)
    def in_half(params, batch, key, **beside):
        return loss_fn(half(params), half(batch), key, **beside)

    return in_half


def mean_gradient(carry: Carry) -> Tree:
    """Return the mean gradient over all examples, which `sgd_work(..., full_gradient=True)` has found; 0 without examples."""
    total, count = carry.full_gradient
    return jax.tree.map(lambda x: x / jnp.maximum(count, 1).astype(x.dtype), total)


def _add(mean: Mean, gradient: Tree, examples: Array) -> Mean:
    """Add the mean gradient over a number of examples to a sum over examples."""
    return Mean(jax.tree.map(lambda x, g: x + examples.astype(g.dtype) * g, mean.total, gradient), mean.count + examples)


def _if(condition: Array, mean: Mean) -> Mean:
    """Return `mean` where `condition` holds, else a `Mean` that counts nothing."""
    return jax.tree.map(lambda x: jnp.where(condition, x, 0), mean)
