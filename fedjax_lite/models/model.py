"""The tuple `Model`, and parameters beside which a model carries running statistics."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lite.base import Key, Tree


class Model(NamedTuple):
    """A model as two pure functions."""

    init: Callable[[Key, Tree], Tree]  # key, one example without a batch axis -> params
    # params, batch of examples, key -> outputs [batch, ...]; key None: evaluation. An argument `mask` is given the loss function's mask.
    apply: Callable[..., jax.Array]
    # For a model in two parts, where `apply` is `head` after `features`:
    features: Callable[[Tree, Tree, Key | None], jax.Array] | None = None  # params, batch of examples, key -> features [batch, ...]
    head: Callable[[Tree, jax.Array], jax.Array] | None = None  # params, features -> outputs [batch, ...]; both take the whole params
    # For a model whose running statistics change in training: params, batch of examples, key -> outputs [batch, ...], statistics.
    train: Callable[..., tuple[jax.Array, Tree]] | None = None


class WithStatistics(NamedTuple):
    """The leaves of a model that carries running statistics, such as those of batch normalisation.

    No optimizer moves statistics: a loss function returns what they become, and the server adds the aggregate of their changes.
    """

    params: Tree
    statistics: Tree


def in_two(function: str, model: Model) -> tuple[Callable, Callable]:
    """Return a model's features and head.

    Raises:
        ValueError: for a model that lacks one of them; names `function`.
    """
    if model.features is None or model.head is None:
        raise ValueError(f"{function}: the model has no features apart from its head: give both to fl.models.Model, or take another model")
    return model.features, model.head


def outputs_of(model: Model, params: Tree, batch: Tree, key: Key | None, **mask: Any) -> tuple[Any, ...]:
    """Return a model's outputs, and, where they change, what its running statistics become: `outputs, *statistics`.

    >>> outputs_of(Model(lambda key, example: (), lambda params, batch, key: batch), (), 3.0, None)
    (3.0,)
    """
    if model.train is None or key is None or not isinstance(params, WithStatistics):
        return (model.apply(params, batch, key, **mask),)
    return model.train(params, batch, key, **mask)


def learned(change: Tree) -> Tree:
    """Return the part of a model's change that was learned by gradients: 0 in place of that of running statistics.

    >>> learned(WithStatistics(jnp.array(3.0), jnp.array(4.0))).statistics.item(), learned(5.0)
    (0.0, 5.0)
    """
    if not isinstance(change, WithStatistics):
        return change
    return change._replace(statistics=jax.tree.map(jnp.zeros_like, change.statistics))


def with_statistics_of(change: Tree, params: Tree) -> Tree:
    """Return `params` with the running statistics of `change`, if they have some.

    >>> with_statistics_of(WithStatistics(3.0, 4.0), WithStatistics(5.0, 6.0)), with_statistics_of(3.0, 5.0)
    (WithStatistics(params=5.0, statistics=4.0), 5.0)
    """
    return params._replace(statistics=change.statistics) if isinstance(params, WithStatistics) else params


def refuse_statistics(function: str, params: Tree, why: str) -> None:
    """Refuse a model with running statistics.

    Raises:
        ValueError: naming `function`, and saying why.
    """
    if isinstance(params, WithStatistics):
        raise ValueError(f"{function}: {why}, and the model has running statistics: take layers without them (GroupNorm, LayerNorm)")


def is_frozen(function: str, statistics: Any) -> bool:
    """Return whether training leaves running statistics as they are.

    Raises:
        ValueError: for what is neither "averaged" nor "frozen"; names `function`.
    """
    if statistics not in ("averaged", "frozen"):
        raise ValueError(f'{function}: statistics must be "averaged" or "frozen", got {statistics!r}')
    return statistics == "frozen"


def refuse_changing(params: Tree) -> None:
    """Refuse to train a model whose running statistics would be lost.

    Raises:
        ValueError: saying what does not lose them.
    """
    if isinstance(params, WithStatistics):
        raise ValueError(
            "the model's running statistics change in training, and here they would be lost: take a method of local steps on "
            'fl.models.supervised(model), statistics="frozen", or layers without statistics (GroupNorm, LayerNorm)'
        )


def usable(statistics: Tree) -> Tree:
    """Return running statistics as a model takes them: constants, and no variance below 0, which noise on an average may leave.

    >>> {name: x.tolist() for name, x in usable({"mean": jnp.array([-1.0]), "var": jnp.array([-1.0])}).items()}
    {'mean': [-1.0], 'var': [0.0]}
    """

    def of_leaf(path: Any, x: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return jax.lax.stop_gradient(jnp.maximum(x, 0) if name == "var" else x)

    return jax.tree_util.tree_map_with_path(of_leaf, statistics)


def leaf_of(examples: Tree, argument: str, name: str) -> Any:
    """Return the leaf `name` of examples.

    Raises:
        ValueError: for examples without that leaf; names their leaves and the `argument` that asks for the leaf.
    """
    if not isinstance(examples, Mapping) or name not in examples:
        there = f"has the leaves {', '.join(map(str, examples))}" if isinstance(examples, Mapping) else "has no leaves by name"
        raise ValueError(f"{argument}={name!r} is no leaf of the examples: one {there}")
    return examples[name]
