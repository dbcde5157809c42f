"""D-PSGD: every client trains a model of its own, and mixes it with its neighbours' in every round."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite import tree
from fedjax_lite.aggregators.lift import from_stack
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.algorithms.optimisation.pieces import of_everyone
from fedjax_lite.base import NO_LIMIT, Algorithm, Client, ClientWork, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.mixing import Drawn, check_mixing
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.work import sgd_work

ADAPT_THEN_COMBINE, COMBINE_THEN_ADAPT = "adapt-then-combine", "combine-then-adapt"


class Models(NamedTuple):
    """The server's state: there is no server, and these are the clients' models."""

    stack: Tree  # X, [population, ...]


def dpsgd(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    mixing: Any,
    form: str = COMBINE_THEN_ADAPT,
    symmetric: bool = True,
    keep_optimizer: bool = False,
    learning_rate: Any = None,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""D-PSGD: clients take local steps on models of their own, and average them with their neighbours.

    Rows of X are the clients' models, D(X) their changes by local steps from their own rows, -eta grad for one of SGD:
    "combine-then-adapt" (the paper's)  X <- W X + D(X);  "adapt-then-combine"  X <- W (X + D(X)).

    Args:
        mixing: W `[population, population]`, symmetric with rows that sum to 1: `fl.mixing.ring(n)`, `torus`, `complete`,
            `random_geometric`, `metropolis(edges)`, one's own; or one that is drawn in every round, `fl.mixing.gossip(n)`.
        form: the order of the two; "combine-then-adapt" takes gradients at models that are not yet mixed, while they are under way.
        symmetric: False allows a W that is not, whose rows sum to 1 all the same: the mean of the models then moves by itself.
        keep_optimizer: each client keeps its optimizer's state from round to round: momentum with one step a round.
        loss_fn, optimizer, batches, population, learning_rate, uplink, engine: as in `fedavg`. What the uplink compresses is the change.

    Returns:
        An `Algorithm` whose `models(state)` are X, for `fl.evaluate_each`, and whose `params(state)` is their mean. The metric
        "consensus_distance" is the mean squared distance of the models to their mean; "uplink_bits" counts one message a client, which
        all its neighbours get. A client whose change is not finite, or that takes no step, mixes its model as it is.

    Raises:
        ValueError: for a matrix or a form that is none, and in a round whose cohort has not a slot for every client.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([x])} for x in (0.0, 4.0)])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.dpsgd(
    ...     loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=2, mixing=[[0.75, 0.25], [0.25, 0.75]], form="adapt-then-combine"
    ... )
    >>> state, history = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> algorithm.models(state).tolist(), float(algorithm.params(state)), history["consensus_distance"].tolist()  # 0 and 2, mixed
    ([0.5, 1.5], 1.0, [0.25])

    Source: Lian et al. 2017, "Can decentralized algorithms outperform centralized algorithms?", algorithm 1.
    """
    if form not in (ADAPT_THEN_COMBINE, COMBINE_THEN_ADAPT):
        raise ValueError(f'dpsgd: form must be "{COMBINE_THEN_ADAPT}" or "{ADAPT_THEN_COMBINE}", got {form!r}')
    mixing = check_mixing("dpsgd", mixing, population, symmetric)
    sgd = sgd_work(loss_fn, optimizer, learning_rate=learning_rate, keep_optimizer=keep_optimizer)

    def update(change, state, info):
        weights = mixing.draw(info.key) if isinstance(mixing, Drawn) else jnp.asarray(mixing)
        moved = jax.tree.map(jnp.add, state.stack, change)
        if form == ADAPT_THEN_COMBINE:
            return Models(_mixed(weights, moved))
        return Models(jax.tree.map(jnp.add, _mixed(weights, state.stack), change))

    server = Server(
        init=lambda params: Models(jax.tree.map(lambda x: jnp.broadcast_to(x, (population, *jnp.shape(x))), params)),
        broadcast=lambda state: Shared((), each=state.stack),
        update=update,
        params=lambda state: _mean(state.stack),
        metrics=lambda state: {"consensus_distance": _distance(state.stack)},
    )
    apart = from_stack(lambda changes, cohort: by_client(changes, cohort, population))
    built = federate(on_own_models(sgd), apart, server, batches=batches, population=population, uplink=uplink, engine=engine)

    def refusal(slots):
        return f"dpsgd: {slots} of {population} clients take part, and mixing is of all of them: sample with fl.sampling.everyone()"

    layout = built.layout and built.layout._replace(rows=None)  # all take part, and their models are all here
    built = built._replace(models=lambda state, ids=None: tree.some(state.server.stack, ids), layout=layout)
    return of_everyone(built, population, refusal)


def on_own_models(work: ClientWork) -> ClientWork:
    """Let each client start from its own row of what is sent."""

    def mine(shared, client):
        return shared._replace(params=tree.take(shared.each, client.id), each=())

    return ClientWork(
        work.init,
        lambda shared, own, client: work.start(mine(shared, client), own, client),
        lambda shared, own, carry, batch: work.step(mine(shared, batch.client), own, carry, batch),
        lambda shared, own, carry, client: work.finish(mine(shared, client), own, carry, client),
    )


def by_client(changes: Tree, cohort: Client, population: int) -> Tree:
    """Order the finite messages by their clients' ids `[population, ...]`; zeros for clients without one."""
    present = cohort.weight > 0
    row = jnp.where(present & is_finite(changes, present), cohort.id, NO_LIMIT)
    return tree.put(jax.tree.map(lambda x: jnp.zeros((population, *x.shape[1:]), x.dtype), changes), row, changes)


def _mixed(weights: Array, stack: Tree) -> Tree:
    """Return W X, in the formats of X."""
    return jax.tree.map(
        lambda x: jnp.tensordot(weights.astype(tree.wide(x).dtype), tree.wide(x), 1, precision="highest").astype(x.dtype), stack
    )


def _mean(stack: Tree) -> Tree:
    """Return the mean of the models."""
    return jax.tree.map(lambda x: jnp.mean(tree.wide(x), axis=0).astype(x.dtype), stack)


def _distance(stack: Tree) -> Array:
    """Return the mean squared distance of the models to their mean."""
    far = jax.tree.map(lambda x: tree.wide(x) - jnp.mean(tree.wide(x), axis=0, keepdims=True), stack)
    return tree.squared_norm(far) / jax.tree.leaves(stack)[0].shape[0]
