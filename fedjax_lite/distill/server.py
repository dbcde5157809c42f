"""The server that distils: what it makes of soft labels is the global model."""

from typing import NamedTuple

import jax
import optax

from fedjax_lite.base import Server, Tree
from fedjax_lite.distill.public import Public, fitting, public_of
from fedjax_lite.distill.student import Apply, Lessons, taught
from fedjax_lite.server import optimizer_server

__all__ = ["distillation_server"]


class DistillationState(NamedTuple):
    """The clients' model, and the student."""

    clients: Tree  # the inner server's state
    student: Tree
    public: Public


def distillation_server(
    how: Lessons,
    apply: Apply,
    public: Tree,
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
        apply: of the student: `(params, batch, key) -> logits [batch, classes]`.
        public: examples `[examples, ...]`, those of `fl.distill.soft_labels`. The state has them, and checkpoints too.
        student: its first parameters, if it is another model than the clients'.
        fresh: a student of its own begins at these in every round, instead of where it was.
        server: what the mean change of the clients' models does to the model they start from; by default
            `fl.optimizer_server(optax.sgd(1.0))`. Of a cohort whose models don't travel nothing comes, and it stays.

    Raises:
        ValueError: for a student that begins anew, but is none of its own; for public examples that it can't take.

    Source: Lin et al. 2020, "Ensemble distillation for robust model fusion in federated learning", algorithms 1 and 3.
    """
    if student is None and fresh:
        raise ValueError(
            "distillation_server: fresh=True is for a student of its own, which student gives; the clients' begins at their mean"
        )
    server = optimizer_server(optax.sgd(1.0)) if server is None else server
    shown = public_of(public)

    def init(params):
        fitting(apply, params if student is None else student, shown, "the student's")
        return DistillationState(server.init(params), () if student is None else student, shown)

    def broadcast(state):
        return server.broadcast(state.clients)._replace(public=state.public.examples)

    def update(lesson, state, info):
        examples = state.public.examples
        clients = server.update(lesson.model, state.clients, info) if jax.tree.leaves(lesson.model) else state.clients
        if student is None:
            learned, *_ = taught(how, apply, server.broadcast(clients).params, examples, lesson.target, info.key)
            return state._replace(clients=clients._replace(params=learned))
        before = student if fresh else state.student
        return state._replace(clients=clients, student=taught(how, apply, before, examples, lesson.target, info.key)[0])

    def params(state):
        return server.broadcast(state.clients).params if student is None else state.student

    return Server(init, broadcast, update, params=params, uses_metrics=server.uses_metrics)
