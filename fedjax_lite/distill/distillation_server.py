"""The server that distils: what it makes of soft labels is the global model."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Info, Server, Tree
from fedjax_lite.distill.digest import student_accuracy
from fedjax_lite.distill.ensemble_aggregator import Lesson, OfFamilies
from fedjax_lite.distill.lessons import Lessons
from fedjax_lite.distill.public_set import Public, Shown, logits_shape, public_of
from fedjax_lite.distill.soft_labels import unflat_model
from fedjax_lite.distill.student import Apply, teach
from fedjax_lite.server import optimizer_server

__all__ = ["distillation_server"]


class DistillationState(NamedTuple):
    """The clients' model, or models, and the student."""

    clients: Tree  # the inner server's state
    student: Tree
    public: Shown


def distillation_server(
    how: Lessons,
    apply: Apply | Sequence[Apply],
    public: Any,
    *,
    student: Tree = None,
    fresh: bool = False,
    server: Server | None = None,
) -> Server:
    """The global model is a student, which learns the clients' soft labels of public examples in every round.

    Without a student of its own the clients' model is distilled: x <- the mean of the clients' models, then lessons from their ensemble
    (FedDF). With one, usually smaller, it is what the algorithm's `params` give; clients go on from the mean of their models.

    Args:
        how: from `fl.distill.lessons`.
        apply: of the student: `(params, batch, key) -> logits [batch, classes]`; of families without a student of its own, of each.
        public: examples `[examples, ...]`, or a `fl.distill.public_set`, those of `fl.distill.soft_labels`. The state has them, and
            checkpoints too.
        student: its first parameters, if it is another model than the clients'.
        fresh: a student of its own begins at these in every round, instead of where it was.
        server: what the mean change of the clients' models does to the model they start from; by default
            `fl.optimizer_server(optax.sgd(1.0))`. Of a cohort whose models don't travel nothing comes, and it stays.

    Returns:
        A `Server`. With labels of the public examples it tells "student_accuracy" on them, if there is one student.

    Raises:
        ValueError: for a student that begins anew, but is none of its own; for public examples that it can't take.

    >>> import fedjax_lite as fl
    >>> how, public = fl.distill.lessons(optax.sgd(1.0), steps=1), {"x": jnp.ones(1)}
    >>> server = fl.distill.distillation_server(how, lambda params, batch, key: batch["x"][:, None] * params, public)
    >>> lesson = fl.distill.Lesson(jnp.array([[1.0, 0.0]]), model=jnp.array([2.0, 2.0]))
    >>> state = server.update(lesson, server.init(jnp.zeros(2)), fl.Info(0, jax.random.key(0), {}))
    >>> [round(float(x), 4) for x in server.params(state)]  # 2 + 1 - 1/2 and 2 + 0 - 1/2
    [2.5, 1.5]

    Source: Lin et al. 2020, "Ensemble distillation for robust model fusion in federated learning", algorithms 1 and 3.
    """
    if student is None and fresh:
        raise ValueError(
            "distillation_server: fresh=True is for a student of its own, which student gives; the clients' begins at their mean"
        )
    server = optimizer_server(optax.sgd(1.0)) if server is None else server
    known = public_of(public)
    if isinstance(apply, Sequence) and student is not None:
        raise ValueError("distillation_server: a student of its own is one model: give its apply, got a list")
    parts = _Parts(how, tuple(apply) if isinstance(apply, Sequence) else apply, known, student, fresh, server)

    def broadcast(state):
        return server.broadcast(state.clients)._replace(public=state.public)

    def params(state):
        return server.broadcast(state.clients).params if student is None else state.student

    def metrics(state):
        return {} if isinstance(apply, Sequence) else student_accuracy(apply, params(state), known, state.public)

    return Server(partial(_init, parts), broadcast, partial(_update, parts), server.uses_metrics, params, metrics)


class _Parts(NamedTuple):
    """What a server distils with."""

    how: Lessons
    apply: Apply | tuple[Apply, ...]  # of several families one each
    public: Public
    student: Tree
    fresh: bool
    server: Server


def _init(parts: _Parts, params: Tree) -> DistillationState:
    """Make the first state, once every student can take the public examples."""
    first = params if parts.student is None else parts.student
    for apply, one in zip(parts.apply, first, strict=True) if isinstance(parts.apply, tuple) else [(parts.apply, first)]:
        logits_shape(apply, one, parts.public, "the student's")
    student = () if parts.student is None else parts.student
    return DistillationState(parts.server.init(params), student, Shown(parts.public.examples, jnp.int32(-1)))


def _update(parts: _Parts, lesson: Lesson, state: DistillationState, info: Info) -> DistillationState:
    """Move the clients' models by their mean change, then let them, or the student, learn the lesson."""
    examples, shown = parts.public.of(info.round, state.public.examples), state.public._replace(round=jnp.int32(info.round))
    clients = _move(parts.server, state.clients, lesson.model, info)

    def learned(apply, params, key):
        return teach(parts.how, apply, params, examples, lesson.target, key)[0]

    if parts.student is not None:
        before = parts.student if parts.fresh else state.student
        return DistillationState(clients, learned(parts.apply, before, info.key), shown)
    models = parts.server.broadcast(clients).params
    if isinstance(parts.apply, tuple):
        pairs = enumerate(zip(parts.apply, models, strict=True))
        models = tuple(learned(*pair, jax.random.fold_in(info.key, k)) for k, pair in pairs)
    else:
        models = learned(parts.apply, models, info.key)
    return DistillationState(clients._replace(params=models), (), shown)


def _move(server: Server, clients: Tree, change: Tree, info: Info) -> Tree:
    """Update the clients' state in the server by the mean change of their models; without one it stays."""
    if isinstance(change, OfFamilies):
        models = server.broadcast(clients).params
        change = tuple(unflat_model(vector, like) for vector, like in zip(change.vectors, models, strict=True))
    return server.update(change, clients, info) if jax.tree.leaves(change) else clients
