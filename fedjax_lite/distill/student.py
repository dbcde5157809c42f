"""The student: a model that learns soft labels, in a scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fedjax_lite import tree
from fedjax_lite.base import Key, Number, Tree
from fedjax_lite.refuse import positive, whole
from fedjax_lite.schedules import Clock, Scheduled, transformation_at
from fedjax_lite.shuffle import permute

__all__ = ["Lessons", "distillation_loss", "lessons", "taught"]

ENOUGH = 64  # steps in which an optimizer that will ever move does, warm-up and accumulation included
Apply = Callable[[Tree, Tree, Key | None], Float[Array, "batch classes"]]


class Lessons(NamedTuple):
    """How a student is taught; from `lessons`."""

    optimizer_at: Callable[[Clock], optax.GradientTransformationExtraArgs]
    steps: int
    batch_size: int
    temperature: Number
    held_out: int
    every: int
    patience: int


def lessons(
    optimizer: Any,
    steps: int,
    batch_size: int = 64,
    *,
    learning_rate: Any = None,
    temperature: Number = 1.0,
    held_out: int = 0,
    every: int = 100,
    patience: int = 1000,
) -> Lessons:
    """How a student is taught: steps on batches of public examples, with early stopping where some are held out.

    Args:
        optimizer: an optax transformation (`optax.adam(1e-3)`), or with `learning_rate` its factory (`optax.adam`). Its state starts anew
            each time, so a schedule in it counts the steps of one time.
        steps: how many at most, at least 1.
        batch_size: examples a step; each epoch goes through them in another order, without the few that fill no batch.
        learning_rate: number, tracer or `fl.on_step(schedule)`.
        temperature: T > 0 of the student's softmax, that of the soft labels.
        held_out: how many public examples, the last ones, no step sees. With any, the student is that of the lowest loss on them.
        every: after how many steps the loss on them is looked at.
        patience: after how many steps without a lower one teaching ends.

    Raises:
        ValueError: for numbers out of range, a schedule on another clock than the step, an optimizer that does not move: such a student
            never learns.

    >>> lessons(optax.adam(1e-3), steps=1000, held_out=200).patience
    1000
    """
    whole("lessons", "steps", steps, least=1)
    whole("lessons", "batch_size", batch_size, least=1)
    positive("lessons", "temperature", temperature)
    whole("lessons", "held_out", held_out)
    whole("lessons", "every", every, least=1)
    whole("lessons", "patience", patience, least=1)
    if isinstance(learning_rate, Scheduled) and learning_rate.clock != "step":
        raise ValueError(f"learning_rate: lessons begin anew each time, so only fl.on_step can schedule it, not {learning_rate.clock!r}")
    optimizer_at = transformation_at(optimizer, learning_rate)
    if not _moves(optimizer_at, steps):
        raise ValueError(f"lessons: the optimizer moves nothing in {min(steps, ENOUGH)} steps, so the student never learns: raise its rate")
    return Lessons(optimizer_at, steps, batch_size, temperature, held_out, every, patience)


def _moves(optimizer_at: Callable[[Clock], optax.GradientTransformationExtraArgs], steps: int) -> bool:
    """Whether an optimizer changes a number whose gradient is 1; one that is traced, or not for such a number, may."""
    x, one = jnp.ones(1), jnp.ones(())
    try:
        state = optimizer_at(Clock(0, 0)).init(x)
        for j in range(min(steps, ENOUGH)):
            change, state = optimizer_at(Clock(0, j)).update(x, state, x, value=one)
            if isinstance(change, jax.core.Tracer) or change[0] != 0:
                return True
    except Exception:  # what is wrong with it will be said of the student's own parameters
        return True
    return False


def distillation_loss(
    logits: Float[Array, "batch classes"], target: Float[Array, "batch classes"], temperature: Number = 1.0
) -> Float[Array, " batch"]:
    r"""How far a model's outputs are from soft labels.

    T^2 KL(q || softmax(s / T)) = T^2 sum_c q_c (log q_c - log softmax(s / T)_c); its gradient by s is T (softmax(s / T) - q), so that the
    temperature does not change the size of a step.

    Args:
        logits: s of the student.
        target: q, probabilities; a row of zeros costs nothing.
        temperature: T > 0, that of the soft labels.

    Returns:
        `[batch]`, at least 0; float32 or wider.

    >>> round(float(distillation_loss(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]]))[0]), 4)
    0.6931

    Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2.1.
    """
    positive("distillation_loss", "temperature", temperature)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return temperature**2 * optax.losses.kl_divergence(jax.nn.log_softmax(logits / temperature, axis=-1), target)


def taught(
    how: Lessons, apply: Apply, params: Tree, examples: Tree, target: Float[Array, "examples classes"], key: Key
) -> tuple[Tree, Int[Array, ""], Float[Array, ""]]:
    """A student after its lessons: pure, for use inside a compiled round.

    Args:
        how: from `lessons`.
        apply: `(params, batch, key) -> logits [batch, classes]`, such as a `Model`'s.
        params: the student before.
        examples: public, leaves `[examples, ...]`.
        target: their soft labels; a row of zeros is passed over.
        key: of the batches' order and the student's own chance, as for dropout.

    Returns:
        The student after, how many steps it took, and its mean loss: on the examples held out, or else of the last epoch's batches. Where
        no example that it learns from has a soft label, it stays as it was, whatever its optimizer does without a gradient: 0 steps.

    Raises:
        ValueError: if there is no example beside those held out, they are not as many as soft labels, or of other classes than the model.

    >>> import fedjax_lite as fl
    >>> how, public, target = fl.distill.lessons(optax.sgd(1.0), steps=1), {"x": jnp.ones(1)}, jnp.array([[1.0, 0.0]])
    >>> apply = lambda params, batch, key: batch["x"][:, None] * params
    >>> student, steps, loss = fl.distill.taught(how, apply, jnp.zeros(2), public, target, jax.random.key(0))
    >>> [round(float(x), 4) for x in student], int(steps), round(float(loss), 4)
    ([0.5, -0.5], 1, 0.6931)
    """
    rows, there = len(target), {x.shape[0] for x in jax.tree.leaves(examples)}
    if there != {rows}:
        raise ValueError(f"distillation: {rows} soft labels for public examples of leading axes {sorted(there)}: give one for each")
    said = jax.eval_shape(lambda params, examples: apply(params, examples, None), params, examples).shape
    if said != target.shape:
        raise ValueError(
            f"distillation: a model says {list(said)} of the public examples, their soft labels are {list(target.shape)}: "
            "all models must have the same number of classes"
        )
    learning = rows - how.held_out
    if learning < 1:
        raise ValueError(f"distillation: held_out={how.held_out} of {rows} public examples leaves none to learn from: lower it")
    size = min(how.batch_size, learning)
    epoch = learning // size  # steps
    order, own = jax.random.split(key)

    def mean_loss(params, index, key):
        q = target[index]
        losses = distillation_loss(apply(params, tree.take(examples, index), key), q, how.temperature)
        return jnp.sum(losses) / jnp.maximum(jnp.sum(jnp.sum(q, axis=-1) > 0), 1)

    def step(carry, j):
        params, state = carry
        index = permute(jax.random.fold_in(order, j // epoch), learning, j % epoch * size + jnp.arange(size))
        loss, gradient = jax.value_and_grad(mean_loss)(params, index, jax.random.fold_in(own, j))
        updates, state = how.optimizer_at(Clock(0, j)).update(gradient, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), loss

    first = (params, how.optimizer_at(Clock(0, 0)).init(params))
    some = jnp.any(target[:learning] != 0)  # NaN is to show
    if not how.held_out:
        (after, _), losses = jax.lax.scan(step, first, jnp.arange(how.steps))
        return tree.where(some, after, params), jnp.where(some, how.steps, 0).astype(jnp.int32), jnp.mean(losses[-epoch:])

    def look(params):
        return mean_loss(params, jnp.arange(learning, rows), None)

    def segment(carry):
        taken, last, current, best, lowest = carry
        until = jnp.minimum(taken + how.every, how.steps)
        current = jax.lax.fori_loop(taken, until, lambda j, current: step(current, j)[0], current)
        loss = look(current[0])
        better = loss < lowest
        best = tree.where(better, current[0], best)
        return until, jnp.where(better, until, last), current, best, jnp.where(better, loss, lowest)

    def goes_on(carry):
        taken, last, *_ = carry
        return some & (taken < how.steps) & (taken - last < how.patience)

    zero = jnp.int32(0)
    taken, _, _, best, lowest = jax.lax.while_loop(goes_on, segment, (zero, zero, first, params, look(params)))
    return best, taken, lowest
