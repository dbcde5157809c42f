"""Fine-tuning for evaluation: what the global model is worth to a client that trains it on its own examples first."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite.base import Client, Key, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.leaves import Rule, chosen
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.work import sgd_work, train_leaves

__all__ = ["FineTune", "fine_tuned"]


class FineTune(NamedTuple):
    """How each client trains the global model before it is evaluated: on its own training examples, and for itself alone."""

    optimizer: Any  # an optax transformation
    batches: Batches  # such as fl.Batches(10, epochs=5)
    leaves: Rule = "all"  # which leaves learn: a rule over their paths, such as fl.leaves.last_layer(model, example)


def fine_tuned(loss_fn: LossFn, params: Tree, data: FederatedData, how: FineTune, key: Key, ids: Any = None) -> Callable[[Array], Tree]:
    """Return the function that gives client k's fine-tuned model, for `fl.evaluate_each`; pure.

    y_k^0 = x,  K_k steps of the optimizer on k's examples;  y_k^K is evaluated, and nothing else is done with it.

    Args:
        loss_fn: the loss.
        params: the model x that is trained, or a function of k that gives client k's.
        data: the clients' training examples; a client without any keeps x.
        how: optimizer, batches and the leaves that learn.
        key: root of the clients' draws.
        ids: int32 `[population]`, the number of each client of `data` in the draws; by default 0, 1, ...

    Raises:
        ValueError: for a rule that chooses no leaf, or every leaf.

    >>> data = FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0, 8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> model_of = fine_tuned(loss_fn, jnp.array(5.0), data, FineTune(optax.sgd(0.5), Batches(1)), jax.random.key(0))
    >>> [float(model_of(k)) for k in (0, 1)]  # one step toward 2, two toward 8
    [3.5, 7.25]

    Source: Wang et al. 2019, "Federated evaluation of on-device personalization".
    """
    optimizer = how.optimizer if how.leaves == "all" else train_leaves(how.optimizer, [(how.leaves, None)])
    work, received = sgd_work(loss_fn, optimizer), params if callable(params) else lambda k: params
    if how.leaves != "all":
        chosen("finetune: leaves", how.leaves, jax.eval_shape(received, jnp.int32(0)))
    steps, ids = how.batches.steps_of(data.size), jnp.arange(data.population) if ids is None else jnp.asarray(ids)

    def model_of(k):
        client = Client(k, jax.random.fold_in(key, ids[k]), data.size[k], steps[k], jnp.ones(()))
        shared = Shared(received(k))
        own = work.init(shared.params, key)
        step = lambda j, carry: work.step(shared, own, carry, how.batches.take(data, client, j))[0]  # noqa: E731
        carry = jax.lax.fori_loop(0, client.steps, step, work.start(shared, own, client))
        return optax.apply_updates(shared.params, work.finish(shared, own, carry, client)[0])

    return model_of
