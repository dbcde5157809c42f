"""Evaluation of all the models that an algorithm has: the global one, each client's own, and the global one after fine-tuning."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_lite.base import Algorithm, Key, Mean, State
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.evaluation.each import evaluate_each, evaluate_models
from fedjax_lite.evaluation.evaluate import evaluate
from fedjax_lite.evaluation.fine_tune import FineTune, fine_tuned
from fedjax_lite.evaluation.summary import fairness
from fedjax_lite.metrics import FINETUNED, NEW, OWN, exponentials
from fedjax_lite.models.loss_fn import LossFn, of_one_model
from fedjax_lite.streams import HIGH_STREAM

__all__ = ["evaluate_algorithm", "evaluate_further", "finetune_key", "numbers", "received"]


def evaluate_algorithm(
    algorithm: Algorithm, loss_fn: LossFn, state: State, data: FederatedData, held_out: FederatedData
) -> dict[str, Mean]:
    """Evaluate the global model, and where clients have own models and examples to be evaluated on, each of these; pure."""
    sums = evaluate(loss_fn, algorithm.params(state), held_out)
    if algorithm.models is None or held_out.population != data.population:
        return sums
    own = evaluate_models(of_one_model(loss_fn), partial(algorithm.models, state), data, held_out)
    return sums | {OWN + name: metric for name, metric in own.items()}


def evaluate_further(
    algorithm: Algorithm, loss_fn: LossFn, state: State, data: FederatedData, held_out: FederatedData, finetune: FineTune | None,
    new: TrainTest | None, key: Key,
) -> dict[str, Mean]:  # fmt: skip
    """Evaluate the global model after each client has fine-tuned it, and on clients that never took part, before and after; pure.

    Where there are several models, clients fine-tune their own, and new clients, who have none, nothing.

    Args:
        key: the run's; of it, and of the clients' numbers, the draws of fine-tuning are a function.
    """
    params, found, of_one = algorithm.params(state), dict[str, Mean](), of_one_model(loss_fn)
    if finetune is not None and held_out.population == data.population:
        model_of = fine_tuned(of_one, received(algorithm, loss_fn, state), data, finetune, finetune_key(key))
        found |= {FINETUNED + name: metric for name, metric in evaluate_each(of_one, model_of, held_out).items()}
    if new is not None:
        theirs = new.train if new.test is None else new.test
        found |= {NEW + name: metric for name, metric in evaluate(loss_fn, params, theirs).items()}
        if finetune is not None and of_one is loss_fn:
            ids = data.population + jnp.arange(new.population)
            model_of = fine_tuned(loss_fn, params, new.train, finetune, finetune_key(key), ids)
            found |= {NEW + FINETUNED + name: metric for name, metric in evaluate_each(loss_fn, model_of, theirs).items()}
    return found


def received(algorithm: Algorithm, loss_fn: LossFn, state: State) -> Any:
    """Return the model that clients fine-tune: the global one, or, where that is several, the function that gives client k's."""
    if of_one_model(loss_fn) is loss_fn:
        return algorithm.params(state)
    assert algorithm.models is not None
    return partial(algorithm.models, state)


def finetune_key(key: Key) -> Key:
    """Return the stream of a run's key that fine-tuning draws from."""
    return jax.random.fold_in(key, HIGH_STREAM)


def numbers(sums: dict[str, Mean]) -> dict[str, Float[Array, ""]]:
    """Return the values over all examples, and where there are several clients the mean over them and over the worst tenth; pure."""
    values = {name: jax.tree.map(jnp.sum, metric).value() for name, metric in sums.items()}
    values |= {name: jnp.exp(values[log]) for log, name in exponentials(sums).items()}
    return values | fairness({name: metric for name, metric in sums.items() if len(metric.count) > 1})
