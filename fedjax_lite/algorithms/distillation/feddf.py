"""FedDF: averages of models, then lessons from their ensemble."""

from collections.abc import Sequence
from typing import Any

from fedjax_lite.aggregators import mean, weighted_mean
from fedjax_lite.base import Aggregator, Algorithm, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.clients import Family
from fedjax_lite.distill.all_models import mean_over_families
from fedjax_lite.distill.distillation_server import distillation_server
from fedjax_lite.distill.ensemble import Ensemble, mean_logits
from fedjax_lite.distill.ensemble_aggregator import ensemble_aggregator
from fedjax_lite.distill.lessons import Lessons
from fedjax_lite.distill.public_set import public_of
from fedjax_lite.distill.soft_labels import soft_labels
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.ledger import count
from fedjax_lite.models import Model, supervised
from fedjax_lite.work import sgd_work

__all__ = ["feddf"]


def feddf(
    models: Sequence[Model],
    clients: Sequence[int],
    params: Sequence[Tree],
    optimizer: Any,
    public: Any,
    how: Lessons,
    *,
    batches: Batches,
    learning_rate: Any = None,
    ensemble: Ensemble | None = None,
    soft: Aggregator | None = None,
    aggregator: Aggregator | None = None,
    student: tuple[Model, Tree] | None = None,
    fresh: bool = False,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedDF: each architecture's models are averaged, and every average learns from the ensemble of all models.

    x_p <- sum_{k in S_p} n_k / n_p y_k;  then steps on batches of public examples along
    -grad KL(softmax(1/|S| sum_{k in S} f(y_k) / T) || softmax(f(x_p) / T)).

    Args:
        models: an architecture for each family of clients; their losses are cross-entropies of the leaf "y".
        clients: the number of clients of each family; ids are consecutive.
        params: first parameters of each family, for their sizes. `Algorithm.init` takes a tuple of first parameters, for one family too.
        optimizer, learning_rate, batches: of local training, as in `fl.sgd_work`.
        public: examples `[examples, ...]`, or a `fl.distill.public_set`.
        how: from `fl.distill.lessons`; Adam at 1e-3 with a cosine to 0 in the paper.
        ensemble: the ensemble of all models; `fl.distill.mean_logits()` by default.
        soft: the rule for soft labels; the plain mean by default.
        aggregator: the rule for each family's changes; `fl.aggregators.weighted_mean()` by default.
        student: a separate model with its first parameters, which learns in place of the averages.
        fresh: the student begins anew in every round.
        engine: as in `fl.federate`.

    Returns:
        An algorithm whose global model is the student, or the tuple of the families' averages; its `loss_fn` is the student's, or the mean
        over the families.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp, optax
    >>> models = [fl.models.linear(3), fl.models.mlp((8,), classes=3)]
    >>> params = tuple(jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros(4)}) for model in models)
    >>> how = fl.distill.lessons(optax.adam(1e-3), steps=10)
    >>> parts = models, [3, 2], params, optax.sgd(0.1), {"x": jnp.zeros((6, 4))}, how
    >>> algorithm = fl.algorithms.feddf(*parts, batches=fl.Batches(20))
    >>> state = jax.eval_shape(algorithm.init, params, jax.random.key(1))
    >>> [average["Dense_0"]["kernel"].shape for average in algorithm.params(state)]
    [(4, 3), (4, 8)]

    Source: Lin et al. 2020, "Ensemble distillation for robust model fusion in federated learning", algorithms 1 and 3.
    """
    ensemble, public = ensemble or mean_logits(), public_of(public)
    width = max(map(count, params))
    families = [
        Family(
            sgd_work(supervised(model), optimizer, learning_rate=learning_rate),
            number,
            soft_labels(model.apply, public, ensemble, model=True, width=width),
        )
        for model, number in zip(models, clients, strict=True)
    ]
    if student is None:
        server = distillation_server(how, [model.apply for model in models], public)
    else:
        server = distillation_server(how, student[0].apply, public, student=student[1], fresh=fresh)
    algorithm = federate(
        families,
        ensemble_aggregator(ensemble, soft or mean(), aggregator or weighted_mean(), public, clients),
        server,
        batches=batches,
        population=sum(clients),
        engine=engine,
    )
    return algorithm._replace(loss_fn=mean_over_families(*map(supervised, models)) if student is None else supervised(student[0]))
