"""The student: a model that learns soft labels, in a scan."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.base import Key, Number, Tree
from fedjax_lite.distill.lessons import Lessons
from fedjax_lite.refuse import positive
from fedjax_lite.schedules import Clock
from fedjax_lite.shuffle import permute

__all__ = ["Apply", "distillation_loss", "teach"]

Apply = Callable[[Tree, Tree, Key | None], Float[Array, "batch classes"]]


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


def teach(
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
    >>> student, steps, loss = fl.distill.teach(how, apply, jnp.zeros(2), public, target, jax.random.key(0))
    >>> [round(float(x), 4) for x in student], int(steps), round(float(loss), 4)
    ([0.5, -0.5], 1, 0.6931)
    """
    _check(how, apply, params, examples, target)
    order, own = jax.random.split(key)
    course = _Course(how, apply, examples, target, order, own)
    first = (params, how.optimizer_at(Clock(0, 0)).init(params))
    some = jnp.any(target[: course.learning] != 0)  # NaN is to show
    if how.held_out:
        return _stop_early(course, first, some)
    (after, _), losses = jax.lax.scan(partial(_step, course), first, jnp.arange(how.steps))
    return tree.where(some, after, params), jnp.where(some, how.steps, 0).astype(jnp.int32), jnp.mean(losses[-course.epoch :])


class _Course(NamedTuple):
    """What a student goes through."""

    how: Lessons
    apply: Apply
    examples: Tree
    target: Float[Array, "examples classes"]
    order: Key  # of the batches
    own: Key  # of the student's chance

    @property
    def learning(self) -> int:
        """How many examples, the first ones, it learns from."""
        return len(self.target) - self.how.held_out

    @property
    def size(self) -> int:
        """How many examples a step takes."""
        return min(self.how.batch_size, self.learning)

    @property
    def epoch(self) -> int:
        """How many steps an epoch has."""
        return self.learning // self.size


class _Early(NamedTuple):
    """Where lessons that may stop early are."""

    taken: Int[Array, ""]  # steps
    last: Int[Array, ""]  # after how many of them the student was the best
    current: tuple[Tree, Tree]  # the student, and its optimizer's state
    best: Tree
    lowest: Float[Array, ""]  # the best one's loss


def _check(how: Lessons, apply: Apply, params: Tree, examples: Tree, target: Float[Array, "rows classes"]) -> None:
    """Refuse examples without a target each, targets of other classes than the model's, and none to learn from."""
    rows, there = len(target), {x.shape[0] for x in jax.tree.leaves(examples)}
    if there != {rows}:
        raise ValueError(f"distillation: {rows} soft labels for public examples of leading axes {sorted(there)}: give one for each")
    said = jax.eval_shape(lambda params, examples: apply(params, examples, None), params, examples).shape
    if said != target.shape:
        raise ValueError(
            f"distillation: a model says {list(said)} of the public examples, their soft labels are {list(target.shape)}: "
            "all models must have the same number of classes"
        )
    if how.held_out >= rows:
        raise ValueError(f"distillation: held_out={how.held_out} of {rows} public examples leaves none to learn from: lower it")


def _mean_loss(course: _Course, params: Tree, index: Int[Array, " batch"], key: Key | None) -> Float[Array, ""]:
    """Take the mean loss of the examples at an index, of those that have a soft label."""
    q = course.target[index]
    losses = distillation_loss(course.apply(params, tree.take(course.examples, index), key), q, course.how.temperature)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(jnp.sum(q, axis=-1) > 0), 1)


def _step(course: _Course, carry: tuple[Tree, Tree], j: Int[Array, ""]) -> tuple[tuple[Tree, Tree], Float[Array, ""]]:
    """Take step j on its batch."""
    params, state = carry
    learning, size, epoch = course.learning, course.size, course.epoch
    index = permute(jax.random.fold_in(course.order, j // epoch), learning, j % epoch * size + jnp.arange(size))
    loss, gradient = jax.value_and_grad(partial(_mean_loss, course))(params, index, jax.random.fold_in(course.own, j))
    updates, state = course.how.optimizer_at(Clock(0, j)).update(gradient, state, params, value=loss)
    return (optax.apply_updates(params, updates), state), loss


def _stop_early(course: _Course, first: tuple[Tree, Tree], some: Bool[Array, ""]) -> tuple[Tree, Int[Array, ""], Float[Array, ""]]:
    """Go through the course until no step makes a better student, if there are some soft labels; the best one."""
    how = course.how

    def look(params):
        return _mean_loss(course, params, jnp.arange(course.learning, len(course.target)), None)

    def segment(at: _Early) -> _Early:
        until = jnp.minimum(at.taken + how.every, how.steps)
        current = jax.lax.fori_loop(at.taken, until, lambda j, current: _step(course, current, j)[0], at.current)
        loss = look(current[0])
        better = loss < at.lowest
        best = tree.where(better, current[0], at.best)
        return _Early(until, jnp.where(better, until, at.last), current, best, jnp.where(better, loss, at.lowest))

    def goes_on(at: _Early) -> Bool[Array, ""]:
        return some & (at.taken < how.steps) & (at.taken - at.last < how.patience)

    zero, (params, _) = jnp.int32(0), first
    end = jax.lax.while_loop(goes_on, segment, _Early(zero, zero, first, params, look(params)))
    return end.best, end.taken, end.lowest
