"""Models made of equinox modules."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Key
from fedjax_lite.models.model import Model, leaf_of
from fedjax_lite.tree import nested, paths_of

__all__ = ["from_equinox"]


def from_equinox(make: Callable[..., Any], *, input: str = "x") -> Model:
    """Make a model of an equinox module, which is called on one example, as in equinox: `module(x)` or `module(x, key=key)`.

    In training each example has a key of its own, drawn from the client's; in evaluation all layers are in equinox's inference mode.

    Args:
        make: `key -> module`, such as `lambda key: eqx.nn.MLP(5, 3, 8, 2, key=key)`, which gives other parameters for other keys; or a
            module, with whose parameters the model starts whatever the key, such as one that is trained already.
        input: the leaf of an example that is the module's input.

    Returns:
        A `Model` whose leaves, the module's floating-point arrays, are nested dicts by path: "layers/0/weight". All else of the module,
        functions and sizes, is the program's.

    Raises:
        TypeError: for a make that makes no module.
        ValueError: for a module that keeps state (`eqx.nn.BatchNorm`), or arrays of whole numbers.

    >>> import equinox as eqx
    >>> model = from_equinox(lambda key: eqx.nn.Linear(5, 3, key=key))
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(5)})
    >>> jax.tree.map(jnp.shape, params), model.apply(params, {"x": jnp.ones((2, 5))}, None).shape
    ({'bias': (3,), 'weight': (3, 5)}, (2, 3))
    """
    import equinox as eqx  # here: it is optional

    fixed = make if isinstance(make, eqx.Module) else None

    def parted(key: Key) -> tuple[Any, Any]:
        module = make(key) if fixed is None else fixed
        return eqx.partition(_refuse_state(module), eqx.is_inexact_array)

    def init(key, example):
        leaf_of(example, "from_equinox: input", input)
        leaves = parted(key)[0]
        return nested({tuple(path.split("/")): x for path, x in zip(paths_of(leaves), jax.tree.leaves(leaves), strict=True)})

    def apply(params, batch, key=None):
        shapes, rest = eqx.filter_eval_shape(parted, jax.random.key(0))
        flat = dict(zip(paths_of(params), jax.tree.leaves(params), strict=True))
        leaves = jax.tree.unflatten(jax.tree.structure(shapes), [flat[path] for path in paths_of(shapes)])
        module = eqx.nn.inference_mode(eqx.combine(leaves, rest), key is None)
        x = leaf_of(batch, "from_equinox: input", input)
        if key is None or "key" not in inspect.signature(module.__call__).parameters:
            return jax.vmap(module)(x)
        return jax.vmap(lambda x, key: module(x, key=key))(x, jax.random.split(key, len(x)))

    return Model(init, apply)


def _refuse_state(module: Any) -> Any:
    """Refuse what is no equinox module, and modules whose state or whole numbers nobody could average."""
    import equinox as eqx

    if not isinstance(module, eqx.Module):
        raise TypeError(f"from_equinox: make must make an equinox module, and makes {type(module).__name__}")
    is_state = lambda x: isinstance(x, eqx.nn.StateIndex)  # noqa: E731
    if any(map(is_state, jax.tree.leaves(module, is_leaf=is_state))):
        raise ValueError("from_equinox: the module keeps state (as eqx.nn.BatchNorm does): take layers without it (GroupNorm, LayerNorm)")
    leaves = jax.tree_util.tree_leaves_with_path(module)
    whole = [jax.tree_util.keystr(path) for path, leaf in leaves if eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if whole:
        raise ValueError(f"from_equinox: the module's {', '.join(whole)} has no gradient: make it a NumPy array or a static field")
    return module
