"""Models made of haiku's transformed functions, with the state that they carry."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Key, Tree
from fedjax_lite.models.model import Model, WithStatistics, leaf_of, refuse_changing

__all__ = ["from_haiku"]


def from_haiku(transformed: object, *, input: str = "x", flag: str | None = None) -> Model:
    """Make a model of what `haiku.transform` or `haiku.transform_with_state` returns, of a function of the inputs.

    Draws are of the client's own key in training, and there is no key in evaluation: a function that draws there, such as a dropout that
    does not hear the flag, is refused.

    Args:
        transformed: of a function `x -> outputs`, with the inputs of a batch.
        input: the leaf of an example that is the function's input.
        flag: the function's argument that is True in training and False in evaluation, for instance "is_training".

    Returns:
        A `Model` with haiku's nested dicts as parameters; with state a `fl.models.WithStatistics` of both, whose counts are floats here.
        haiku's `BatchNorm` takes no mask, so the copies that fill up a short last batch count in it: take batches that divide the clients'
        examples, or layers without statistics (GroupNorm, LayerNorm).

    Raises:
        TypeError: for what is not transformed.
        ValueError: in evaluation, for a function that draws.

    >>> import haiku as hk
    >>> model = from_haiku(hk.transform(lambda x: hk.nets.MLP([8, 3])(x)))
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(5)})
    >>> jax.tree.map(jnp.shape, params["mlp/~/linear_1"]), model.apply(params, {"x": jnp.ones((2, 5))}, None).shape
    ({'b': (3,), 'w': (8, 3)}, (2, 3))
    """
    fields = getattr(transformed, "_fields", ())
    if fields != ("init", "apply"):
        raise TypeError(f"from_haiku: transformed must be of haiku.transform or haiku.transform_with_state, got {transformed!r}")
    whole: Any = transformed
    stateful = type(whole).__name__ == "TransformedWithState"

    def flags(training: bool) -> dict[str, bool]:
        return {} if flag is None else {flag: training}

    def init(key, example):
        x = jnp.asarray(leaf_of(example, "from_haiku: input", input))[None]
        made = whole.init(key, x, **flags(True))
        params, state = made if stateful else (made, {})
        return WithStatistics(_plain(params), _floats(_plain(state))) if state else _plain(params)

    def called(params: Tree, batch: Tree, key: Key | None) -> tuple[Any, Tree]:
        x = leaf_of(batch, "from_haiku: input", input)
        given, of = params if isinstance(params, WithStatistics) else WithStatistics(params, {})
        operands = (given, _as_kept(of, _kinds(whole, key, x, flags(True))) if of else of) if stateful else (given,)
        try:
            found = whole.apply(*operands, key, x, **flags(key is not None))
        except ValueError as error:
            if key is not None or "rng" not in str(error).lower():
                raise
            heard = f"its flag {flag!r}" if flag else "no flag"
            raise ValueError(f"from_haiku: the function draws in evaluation, with {heard}: name the argument that turns it off") from error
        return found if stateful else (found, {})

    def apply(params, batch, key=None):
        if key is not None:
            refuse_changing(params)
        return called(params, batch, key)[0]

    def train(params, batch, key):
        outputs, state = called(params, batch, key)
        return outputs, _floats(_plain(state))

    return Model(init, apply, train=train if stateful else None)


def _plain(tree: Any) -> Any:
    """Return nested mappings as dicts."""
    return {name: _plain(value) for name, value in tree.items()} if isinstance(tree, Mapping) else tree


def _floats(state: Tree) -> Tree:
    """Return state with whole numbers as floats, which servers can average."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32), state)


def _kinds(transformed: Any, key: Key | None, x: Any, flags: dict[str, bool]) -> Tree:
    """Return the shapes and dtypes of a function's own state."""
    return jax.eval_shape(lambda key, x: _plain(transformed.init(key, x, **flags)[1]), jax.random.key(0) if key is None else key, x)


def _as_kept(state: Tree, kinds: Tree) -> Tree:
    """Return averaged state as the function takes it: constants of its own dtypes, and no average of a square below 0."""

    def of_leaf(path: Any, x: Any, kind: Any) -> Any:
        x = jnp.maximum(x, 0) if "var" in jax.tree_util.keystr(path) else x
        x = x if jnp.issubdtype(kind.dtype, jnp.floating) else jnp.round(x)
        return jax.lax.stop_gradient(x.astype(kind.dtype))

    return jax.tree_util.tree_map_with_path(of_leaf, state, kinds)
