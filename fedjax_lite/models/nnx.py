"""Models made of flax nnx modules, with the running statistics that they carry."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fedjax_lite.base import Key, Tree
from fedjax_lite.models.model import Model, WithStatistics, is_frozen, leaf_of, refuse_changing, usable


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], *, input: str = "x", mask: str | None = None, statistics: str = "averaged") -> Model:
    """Make a model of a flax nnx module whose call is `module(x)`.

    Training and evaluation are the module's own modes (`nnx.Module.train` and `eval`), so dropout needs no argument; what a client draws
    is of its own key.

    Args:
        make: `rngs -> module`: the module's class, or a function that makes one; called when parameters are initialised, and once for the
            module's structure.
        input: the leaf of an example that is the module's input.
        mask: the argument of the module's call that takes bool `[batch]`, False for the copies that fill up a short last batch, for a
            module that looks across the batch: `nnx.BatchNorm` counts them unless it is given this mask.
        statistics: what training does with running statistics (`nnx.BatchStat`), "averaged" or "frozen", as in `fl.models.from_linen`.

    Returns:
        A `Model` whose leaves are plain nested dicts by attribute, or of a module with statistics a `fl.models.WithStatistics` of two.

    Raises:
        TypeError: for a make that is a module already.
        ValueError: for an argument that the module's call lacks; for a module that keeps other state.

    >>> model = from_nnx(lambda rngs: nnx.Linear(64, 10, rngs=rngs))
    >>> jax.tree.map(jnp.shape, model.init(jax.random.key(0), {"x": jnp.zeros(64)}))
    {'bias': (10,), 'kernel': (64, 10)}
    """
    if isinstance(make, nnx.Module) or not callable(make):
        raise TypeError(f"from_nnx: make must be a function rngs -> module, which gives other parameters for other keys, got {make!r}")
    frozen = is_frozen("from_nnx", statistics)

    def parted(key: Key) -> tuple[Any, Any, Any, Any]:
        states: Any = nnx.split(_refuse_state(make(nnx.Rngs(key)), mask), nnx.Param, nnx.BatchStat, ...)
        return states[0], states[1], states[2], states[3]

    def init(key, example):
        leaf_of(example, "from_nnx: input", input)
        _, params, running, _ = parted(key)
        params, running = nnx.to_pure_dict(params), nnx.to_pure_dict(running)
        return WithStatistics(params, running) if running else params

    def called(params: Tree, batch: Tree, key: Key | None, real: Any) -> tuple[Any, nnx.Module]:
        graph, leaves, running, draws = jax.eval_shape(parted, jax.random.key(0))
        given, of = params if isinstance(params, WithStatistics) else WithStatistics(params, {})
        nnx.replace_by_pure_dict(leaves, given)
        nnx.replace_by_pure_dict(running, usable(of))
        module = nnx.merge(graph, leaves, running, _streams(draws, key), copy=True)
        _set_mode(module, key is not None, frozen)
        inputs = leaf_of(batch, "from_nnx: input", input)
        return module(inputs, **({} if mask is None else {mask: jnp.ones(inputs.shape[0], bool) if real is None else real})), module

    def apply(params, batch, key=None, mask=None):
        if key is not None and not frozen:
            refuse_changing(params)
        return called(params, batch, key, mask)[0]

    def train(params, batch, key, mask=None):
        outputs, module = called(params, batch, key, mask)
        return outputs, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    return Model(init, apply, train=None if frozen else train)


def _set_mode(module: nnx.Module, training: bool, frozen: bool) -> None:
    """Put a module into its mode of training or of evaluation; frozen batch normalisation into that of evaluation."""
    (module.train if training else module.eval)()
    for _, layer in nnx.iter_modules(module):
        if frozen and isinstance(layer, nnx.BatchNorm):
            layer.eval()


def _streams(draws: Any, key: Key | None) -> Any:
    """Give each random stream of a module a key of its own, from a client's key; a stream of an evaluated module is not drawn from."""
    leaves, structure = jax.tree.flatten(draws)
    base = jax.random.key(0) if key is None else key
    is_key = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    made = [jax.random.fold_in(base, j) if is_key[j] else jnp.zeros(x.shape, x.dtype) for j, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, made)


def _refuse_state(module: Any, mask: str | None) -> Any:
    """Refuse what is no nnx module, keeps state that nobody could average, or has no argument for the mask."""
    if not isinstance(module, nnx.Module):
        raise TypeError(f"from_nnx: make must make a flax.nnx.Module, and makes {type(module).__name__}")
    known = (nnx.Param, nnx.BatchStat, nnx.RngState)
    others = {type(leaf).__name__ for _, leaf in nnx.to_flat_state(nnx.state(module)) if not isinstance(leaf, known)}
    if others:
        raise ValueError(f"from_nnx: the module keeps {', '.join(sorted(others))}: of its state, BatchStat alone can be averaged")
    takes = inspect.signature(module.__call__).parameters
    if mask is not None and mask not in takes:
        raise ValueError(f"from_nnx: mask={mask!r} is no argument of {type(module).__name__}, whose call takes {', '.join(takes)}")
    return module
