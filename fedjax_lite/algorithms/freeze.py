"""A method on a model of which some leaves stay as they are: nobody trains, sends or aggregates these."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lite.base import Algorithm, Client, Key, Layout, State, Tree
from fedjax_lite.leaves import Rule, chosen, merge, split
from fedjax_lite.models.loss_fn import facts_asked, with_facts
from fedjax_lite.models.model import Model, WithStatistics

__all__ = ["freeze", "learning"]


class Frozen(NamedTuple):
    """The server's state: the method's, and the leaves that stay as they are."""

    inner: Tree
    still: Tree  # None in place of the leaves that learn


def freeze(frozen: Rule, model: Model, params: Tree, make: Callable[[Model], Algorithm]) -> Algorithm:
    """A method that trains some leaves of a model and leaves the others as they are.

    min over u of F(u, v), u the leaves that learn, v those that are frozen.

    The method is given a model of the leaves u alone, so that whatever it does is done to u: messages, clipping and noise, the states of
    optimizers, what clients keep, the bits that are counted. v is known to all from the start, and an operand of compiled programs.

    Args:
        frozen: which leaves are frozen: a regular expression for their paths ("Dense_0/.*"), a name ("norm layers"), or a function
            `(path, leaf) -> bool`, such as `fl.leaves.besides(fl.leaves.last_layer(model, example))`.
        model: the whole model.
        params: its parameters, or their shapes.
        make: `model -> Algorithm`: makes the method and its loss of the model that it is given, in which some leaves are None; it is
            called again wherever a round is traced.

    Returns:
        An `Algorithm` whose `init` takes the whole parameters, and whose `params(state)` and `models(state)` are whole: evaluate them
        with the loss of `model`.

    Raises:
        TypeError: for a make that makes no algorithm.
        ValueError: for a rule that chooses no leaf or all, and a method whose global model is another than the clients' (a student, a model
            with two heads, several models).

    >>> import fedjax_lite as fl, optax
    >>> data = fl.data.digits(fl.partition.iid(4)).train
    >>> model = fl.models.mlp((8,))
    >>> params = model.init(jax.random.key(0), data.example)
    >>> average = lambda model: fl.algorithms.fedavg(
    ...     fl.models.supervised(model), optax.sgd(0.1), batches=fl.Batches(20), population=4
    ... )
    >>> algorithm = fl.freeze("Dense_0/.*", model, params, average)
    >>> state, history = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> jax.tree.map(lambda x, y: bool((x == y).all()), algorithm.params(state), params)
    {'Dense_0': {'bias': True, 'kernel': True}, 'Dense_1': {'bias': False, 'kernel': False}}
    >>> history["uplink_bits"].tolist()  # of 4 clients, each 90 of the 610 numbers
    [11520.0]
    """
    mask = chosen("freeze: frozen", frozen, params)

    def parted(params: Tree) -> tuple[Tree, Tree]:
        still, moving = split(mask, params)
        return moving, still

    def made(still: Tree) -> Algorithm:
        algorithm = make(learning(model, mask, still))
        if not isinstance(algorithm, Algorithm):
            raise TypeError(f"freeze: make must make a fl.Algorithm of the model that it is given, and makes {algorithm!r}")
        return algorithm

    def init(params: Tree, key: Key) -> State:
        moving, still = parted(params)
        state = made(still).init(moving, key)
        return state._replace(server=Frozen(state.server, jax.tree.map(jnp.asarray, still)))

    def inside(state: State) -> tuple[Algorithm, State]:
        return made(state.server.still), state._replace(server=state.server.inner)

    def round(state: State, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
        algorithm, before = inside(state)
        after, metrics = algorithm.round(before, data, cohort)
        return after._replace(server=Frozen(after.server, state.server.still)), metrics

    def whole(state: State) -> Tree:
        algorithm, before = inside(state)
        return merge(algorithm.params(before), state.server.still)

    def models(state: State, ids: Any = None) -> Tree:
        algorithm, before = inside(state)
        assert algorithm.models is not None
        moving = algorithm.models(before, ids)
        rows = jnp.shape(ids) if ids is not None else jax.tree.leaves(moving)[0].shape[:1]
        return merge(moving, jax.tree.map(lambda x: jnp.broadcast_to(x, (*rows, *x.shape)), state.server.still))

    first = made(parted(params)[1])
    _check(first, parted(params)[0])
    layout = (
        None
        if first.layout is None
        else Layout(first.layout.steps, _rows(first, made, parted), _stacks(inside), _demand(first, inside), first.layout.queued)
    )
    loss_fn = None if first.loss_fn is None else _loss(first.loss_fn, made, parted)
    return Algorithm(init, round, whole, layout, first.privacy, models if first.models else None, loss_fn, first.asynchrony)


def learning(model: Model, mask: Tree, still: Tree) -> Model:
    """Make the model of the leaves that learn, in which the others are `still`.

    Args:
        mask: bool, which leaves are frozen.
        still: those leaves, None in place of the others.
    """

    def on_whole(function: Callable | None) -> Any:
        if function is None:
            return None
        return wraps(function)(lambda params, *args, **keywords: function(merge(params, still), *args, **keywords))

    def train(params: WithStatistics, *args: Any, **keywords: Any) -> tuple[Any, Tree]:
        assert model.train is not None
        outputs, statistics = model.train(merge(params, still), *args, **keywords)
        return outputs, split(mask.statistics, statistics)[1]

    init = wraps(model.init)(lambda key, example: split(mask, model.init(key, example))[1])
    return Model(init, on_whole(model.apply), on_whole(model.features), on_whole(model.head), model.train and wraps(model.train)(train))


def _check(algorithm: Algorithm, moving: Tree) -> None:
    """Refuse a method whose global model is not like the model that it is given."""
    remedy = "take a method whose clients and server have one model"
    try:
        shapes = jax.eval_shape(lambda params: algorithm.params(algorithm.init(params, jax.random.key(0))), moving)
    except (TypeError, ValueError, AttributeError) as error:  # of parameters that are no model's, but several models'
        raise ValueError(f"freeze: the method does not start from the leaves that learn of one model: {remedy}") from error
    kinds = [(jax.tree.structure(one), [jnp.shape(x) for x in jax.tree.leaves(one)]) for one in (shapes, moving)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"freeze: the method's global model is {jax.tree.map(jnp.shape, shapes)}, and not that of the leaves that learn, "
            f"{jax.tree.map(jnp.shape, moving)}: {remedy}"
        )


def _rows(first: Algorithm, made: Callable, parted: Callable) -> Any:
    """Return the function of the rows that clients start with; None where the method has none."""

    def rows(params: Tree, key: Key, ids: Any) -> tuple[Tree, Tree]:
        moving, still = parted(params)
        return made(still).layout.rows(moving, key, ids)

    return rows if first.layout is not None and first.layout.rows else None


def _stacks(inside: Callable) -> Any:
    """Return the function of the method's stacks."""

    def stacks(state: State, data: Any, cohort: Client) -> dict[str, Tree]:
        algorithm, before = inside(state)
        return algorithm.layout.stacks(before, data, cohort)

    return stacks


def _demand(first: Algorithm, inside: Callable) -> Any:
    """Return the function of what the method's round asks of clients; None where the method does not tell."""

    def demand(state: State, cohort: Client) -> Any:
        algorithm, before = inside(state)
        return algorithm.layout.demand(before, cohort)

    return demand if first.layout is not None and first.layout.demand else None


def _loss(loss_fn: Callable, made: Callable, parted: Callable) -> Callable:
    """Make the loss by which the method evaluates, of the whole model."""

    def of_whole(params, batch, key, **beside):
        moving, still = parted(params)
        return made(still).loss_fn(moving, batch, key, **beside)

    return with_facts(wraps(loss_fn)(partial(of_whole)), facts_asked(loss_fn))
