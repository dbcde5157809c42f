"""Models that stay with their clients: agreed soft labels travel, and each client's model learns them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_lite.base import ClientWork, Key, Server, Shared, Tree
from fedjax_lite.distill.lessons import Lessons
from fedjax_lite.distill.public_set import Public, Shown, logits_shape, public_of
from fedjax_lite.distill.soft_labels import AT_ONCE, logits_of
from fedjax_lite.distill.student import Apply, teach
from fedjax_lite.refuse import whole

__all__ = ["consensus_server", "digest_work"]

_DIGEST = np.uint32(2**32 - 3)


class DigestOwn(NamedTuple):
    """A client's own row, or its carry while it trains."""

    model: Tree
    work: Tree  # the own row, or the carry, of the work inside


def digest_work(
    work: ClientWork,
    apply: Apply | None = None,
    public: Any = None,
    digest: Lessons | None = None,
    start: Callable[[Tree, Key], Tree] = lambda params, key: params,
) -> ClientWork:
    """Make client work whose model stays with the client; before training the model learns the soft labels agreed on last.

    Args:
        work: what the client does to its model, for instance `fl.sgd_work(...)`.
        apply: the model's: `(params, batch, key) -> logits [batch, classes]`.
        public: the public examples, as in `fl.distill.soft_labels`.
        digest: how the agreed soft labels are learned, from `fl.distill.lessons`; None: not at all. With a ragged cohort `fl.padded()`
            learns once a client, while `fl.packed()` computes this for all lanes whenever a lane takes its next client.
        start: params, key -> a client's first model; by default the parameters that the run was given.

    Returns:
        A `ClientWork` whose message is the model itself, for `fl.distill.soft_labels`; its server is `fl.distill.consensus_server`.

    Raises:
        ValueError: for a digest without the model's apply or the public examples.

    >>> import fedjax_lite as fl
    >>> work = fl.distill.digest_work(fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2, optax.sgd(0.1)))
    >>> shared, own, client = fl.Shared(()), work.init(jnp.array(3.0), jax.random.key(0)), fl.Client(0, jax.random.key(1), 1, 0, 1.0)
    >>> message, own, _ = work.finish(shared, own, work.start(shared, own, client), client)
    >>> float(message), float(own.model)
    (3.0, 3.0)

    Source: Li and Wang 2019, "FedMD: heterogenous federated learning via model distillation", algorithm 1 (digest, revisit).
    """
    if digest is not None and (apply is None or public is None):
        raise ValueError("kept: digest needs apply, of the client's model, and public, the examples that were spoken of")

    def agreed(model, shared, client):
        """Return the client's model after it has learned the agreed soft labels."""
        if digest is None or apply is None:
            return model
        examples = public_of(public).of(shared.public.round, shared.public.examples)
        return teach(digest, apply, model, examples, shared.extra, jax.random.fold_in(client.key, _DIGEST))[0]

    def init(params, key):
        return DigestOwn(start(params, key), work.init(params, key))

    def begin(shared, own, client):
        model = agreed(own.model, shared, client)
        return DigestOwn(model, work.start(shared._replace(params=model), own.work, client))

    def step(shared, own, carry, batch):
        inner, metrics = work.step(shared._replace(params=carry.model), own.work, carry.work, batch)
        return carry._replace(work=inner), metrics

    def finish(shared, own, carry, client):
        change, own, metrics = work.finish(shared._replace(params=carry.model), own.work, carry.work, client)
        model = optax.apply_updates(carry.model, change)
        return model, DigestOwn(model, own), metrics

    return ClientWork(init, begin, step, finish)


class ConsensusState(NamedTuple):
    """The soft labels that the clients agreed on last, and the student."""

    labels: Any  # [examples, classes]; zeros before the first round
    student: Tree
    public: Shown


def consensus_server(
    public: Any, classes: int, *, how: Lessons | None = None, apply: Apply | None = None, student: Tree = None, fresh: bool = False
) -> Server:
    """Make a server that sends clients the soft labels they agreed on, and no model; a student may learn them too.

    Args:
        public: examples `[examples, ...]`, or a `fl.distill.public_set`, as given to `fl.distill.soft_labels`.
        classes: the number of classes.
        how, apply: the student's, as in `fl.distill.distillation_server`.
        student: the student's first parameters; None: there is no global model, and `params` are ().
        fresh: the student begins at its first parameters in every round, instead of where the round before left it.

    Returns:
        A `Server` for `fl.distill.digest_work`. With labels of the public examples it has the metric "student_accuracy".

    Raises:
        ValueError: for a student without `how` or `apply`; for public examples that the student can't take.

    >>> import fedjax_lite as fl
    >>> server = fl.distill.consensus_server({"x": jnp.zeros((2, 4))}, classes=2)
    >>> agreed = fl.distill.Lesson(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
    >>> shared = server.broadcast(server.update(agreed, server.init(()), fl.Info(0, None, {})))
    >>> shared.params, shared.extra.tolist()
    ((), [[1.0, 0.0], [0.5, 0.5]])
    """
    whole("consensus_server", "classes", classes, least=2)
    if (student is None) != (how is None) or (student is None) != (apply is None):
        raise ValueError("consensus_server: a student needs how, apply and student, its first parameters: give all three or none")
    known = public_of(public)

    def init(params):
        del params
        if student is not None and logits_shape(apply, student, known, "the student's").shape[1] != classes:
            raise ValueError(f"consensus_server: the student has another number of classes than classes={classes}: make them equal")
        first = jnp.zeros((known.taken, classes))
        return ConsensusState(first, () if student is None else student, Shown(known.examples, jnp.int32(-1)))

    def broadcast(state):
        return Shared((), public=state.public, extra=state.labels)

    def update(lesson, state, info):
        learned = state.student
        if how is not None and apply is not None:
            examples = known.of(info.round, state.public.examples)
            learned = teach(how, apply, student if fresh else learned, examples, lesson.target, info.key)[0]
        return ConsensusState(lesson.target, learned, state.public._replace(round=jnp.int32(info.round)))

    def metrics(state):
        return {} if apply is None else student_accuracy(apply, state.student, known, state.public)

    return Server(init, broadcast, update, params=lambda state: state.student, metrics=metrics)


def student_accuracy(apply: Apply, student: Tree, known: Public, shown: Shown) -> dict[str, Any]:
    """Return the share of all public examples that the student has right, as a metric; none where labels are unknown."""
    if known.labels is None:
        return {}
    return {
        "student_accuracy": jnp.mean(jnp.argmax(logits_of(apply, student, shown.examples, AT_ONCE), -1) == known.labels, dtype=jnp.float32)
    }
