"""FedMD and DS-FL: models stay with their clients, and what they agree on of public examples travels."""

from collections.abc import Sequence
from typing import Any

from fedjax_lite.aggregators import mean
from fedjax_lite.base import Aggregator, Algorithm, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.clients import Family
from fedjax_lite.distill.all_models import mean_over_models, of_all_models
from fedjax_lite.distill.digest import consensus_server, digest_work
from fedjax_lite.distill.ensemble import Ensemble, mean_logits, sharpened
from fedjax_lite.distill.ensemble_aggregator import ensemble_aggregator
from fedjax_lite.distill.lessons import Lessons
from fedjax_lite.distill.public_set import public_of
from fedjax_lite.distill.soft_labels import soft_labels
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models import Model, supervised
from fedjax_lite.work import sgd_work

__all__ = ["dsfl", "fedmd"]


def fedmd(
    models: Sequence[Model],
    clients: Sequence[int],
    optimizer: Any,
    public: Any,
    classes: int,
    digest: Lessons,
    *,
    batches: Batches,
    learning_rate: Any = None,
    ensemble: Ensemble | None = None,
    aggregator: Aggregator | None = None,
    how: Lessons | None = None,
    student: tuple[Model, Tree] | None = None,
    fresh: bool = False,
    uplink: Any = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedMD: in every round a client digests the consensus on public examples, revisits its own, and says anew what it thinks.

    Digest: steps on KL(q || softmax(f_k)) over public x, q the softmax of z(x) = 1/m sum_k f_k(x) of the last round;
    revisit: steps on the client's own labels;  upload f_k(x).

    Args:
        models: an architecture for each family of clients; their losses are cross-entropies of the leaf "y".
        clients: how many each family has; ids follow on each other.
        optimizer, learning_rate, batches: of the revisit, as in `fl.sgd_work`.
        public: examples `[examples, ...]`, or a `fl.distill.public_set`, of which a round may take some.
        classes: how many there are.
        digest: from `fl.distill.lessons`.
        ensemble: `fl.distill.mean_logits()` by default.
        aggregator: the rule for what clients say; the plain mean by default.
        how, student, fresh: of a global model that learns the consensus too, with its first parameters; without it there is none.
        uplink: for what clients say, such as `fl.uplink.uniform(16)`.
        engine: as in `fl.federate`.

    Returns:
        An algorithm whose `init` takes a tuple of each family's first parameters, in the paper those after training on labelled public
        examples (`fl.distill.teach` on their one-hot labels). Without a student its `params` are all clients' models, a stack
        `[clients, ...]` or a tuple with that of each of several families, and its `loss_fn` is their mean loss; with one, the student's.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp, optax
    >>> models = [fl.models.linear(3), fl.models.mlp((8,), classes=3)]
    >>> params = tuple(jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros(4)}) for model in models)
    >>> how = fl.distill.lessons(optax.adam(1e-3), steps=10)
    >>> algorithm = fl.algorithms.fedmd(models, [3, 2], optax.sgd(0.1), {"x": jnp.zeros((6, 4))}, 3, how, batches=fl.Batches(20))
    >>> state = jax.eval_shape(algorithm.init, params, jax.random.key(1))
    >>> [own["Dense_0"]["kernel"].shape for own in algorithm.params(state)], state.server.labels.shape  # what stays, what travels
    ([(3, 4, 3), (2, 4, 8)], (6, 3))

    Source: Li and Wang 2019, "FedMD: heterogenous federated learning via model distillation", algorithm 1.
    """
    ensemble, public = ensemble or mean_logits(), public_of(public)
    families = [
        Family(
            digest_work(sgd_work(supervised(model), optimizer, learning_rate=learning_rate), model.apply, public, digest),
            number,
            soft_labels(model.apply, public, ensemble, then=uplink),
        )
        for model, number in zip(models, clients, strict=True)
    ]
    apply, first = (None, None) if student is None else (student[0].apply, student[1])
    algorithm = federate(
        families,
        ensemble_aggregator(ensemble, aggregator or mean(), public=public),
        consensus_server(public, classes, how=how, apply=apply, student=first, fresh=fresh),
        batches=batches,
        population=sum(clients),
        engine=engine,
    )
    return of_clients(algorithm, models) if student is None else algorithm._replace(loss_fn=supervised(student[0]))


def of_clients(algorithm: Algorithm, models: Sequence[Model]) -> Algorithm:
    """Make the clients' models, of these architectures, the algorithm's params."""

    def params(state):
        found = tuple(own.model for own in state.own)
        return found if len(models) > 1 else found[0]

    return of_all_models(algorithm, params, mean_over_models(*map(supervised, models)))


def dsfl(
    models: Sequence[Model],
    clients: Sequence[int],
    optimizer: Any,
    public: Any,
    classes: int,
    digest: Lessons,
    student: tuple[Model, Tree],
    *,
    batches: Batches,
    how: Lessons | None = None,
    temperature: Number = 0.1,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    fresh: bool = False,
    uplink: Any = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""DS-FL: FedMD with a sharpened consensus, which clients and a global model at the server learn.

    q(x) = softmax(1/K sum_k p_k(x) / T), T < 1.

    Args:
        student: the global model and its first parameters.
        how: how it learns; as `digest` by default.
        temperature: T in (0, 1].
        models, clients, optimizer, public, classes, digest, batches, learning_rate, aggregator, fresh, uplink, engine: as in `fedmd`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp, optax
    >>> model, how, public = fl.models.mlp((8,), classes=3), fl.distill.lessons(optax.adam(1e-3), steps=10), {"x": jnp.zeros((6, 4))}
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(4)})
    >>> parts = [model], [5], optax.sgd(0.1), public, 3, how, (model, params)
    >>> algorithm = fl.algorithms.dsfl(*parts, batches=fl.Batches(20))
    >>> state = jax.eval_shape(algorithm.init, (params,), jax.random.key(1))
    >>> algorithm.params(state)["Dense_0"]["kernel"].shape, state.server.labels.shape  # the global model, what travels
    ((4, 8), (6, 3))

    Source: Itahara et al. 2021, "Distillation-based semi-supervised federated learning", algorithm 1, equation 12.
    """
    return fedmd(
        models,
        clients,
        optimizer,
        public,
        classes,
        digest,
        batches=batches,
        learning_rate=learning_rate,
        ensemble=sharpened(temperature),
        aggregator=aggregator,
        how=how or digest,
        student=student,
        fresh=fresh,
        uplink=uplink,
        engine=engine,
    )
