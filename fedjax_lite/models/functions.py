"""Models made of a pair of functions."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.models.model import Model, leaf_of

__all__ = ["from_functions"]


def from_functions(init: object, apply: object, *, input: str | None = None) -> Model:
    """Make a model of two pure functions, of whatever library, and check what they return.

    `fl.models.Model(init, apply)` is the same without checks, and has room for features, a head and running statistics.

    Args:
        init: `(key, example) -> params`, any pytree of floating-point arrays; the example has no batch axis.
        apply: `(params, batch, key) -> outputs [batch, ...]`, key None in evaluation; without an argument for the key it is not given one.
            An argument named `mask` is given bool `[batch]`, False for the copies that fill up a short last batch.
        input: the leaf of an example that both are given in place of all leaves: `init(key, x)` and `apply(params, x)`.

    Raises:
        TypeError: for what is no function, takes too few arguments, or returns no arrays.
        ValueError: for parameters that are not floating-point numbers, or outputs that are not one an example.

    >>> model = from_functions(lambda key, x: {"w": jnp.zeros((x.size, 2))}, lambda params, x: x @ params["w"], input="x")
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
    >>> model.apply(params, {"x": jnp.ones((4, 3))}, None).shape
    (4, 2)
    """
    begin, _, _ = _arguments("init", init, ("key", "example"))
    call, takes_key, takes_mask = _arguments("apply", apply, ("params", "batch"))

    def init_checked(key, example):
        params = begin(key, example if input is None else jnp.asarray(leaf_of(example, "from_functions: input", input)))
        leaves = jax.tree_util.tree_leaves_with_path(params)
        if not leaves:
            raise TypeError(f"from_functions: init must return the arrays of a model, got {params!r}")
        for path, leaf in leaves:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                name = jax.tree_util.keystr(path) or "its array"
                raise ValueError(f"from_functions: init returns {name} of {jnp.result_type(leaf)}, which has no gradient: close over it")
        return params

    def applied(params, batch, key=None, mask=None):
        given = batch if input is None else leaf_of(batch, "from_functions: input", input)
        outputs = call(params, given, *([key] if takes_key else []), **({"mask": mask} if takes_mask else {}))
        examples = jnp.shape(jax.tree.leaves(batch)[0])[0]
        if not hasattr(outputs, "shape"):
            raise TypeError(f"from_functions: apply must return an array, outputs [batch, ...], got {outputs!r}")
        if outputs.shape[:1] != (examples,):
            raise ValueError(f"from_functions: apply must return outputs [batch, ...], got {list(outputs.shape)} for {examples} examples")
        return outputs

    return Model(init_checked, applied if takes_mask else lambda params, batch, key=None: applied(params, batch, key))


def _arguments(name: str, function: Any, wanted: tuple[str, ...]) -> tuple[Callable[..., Any], bool, bool]:
    """Refuse what cannot be called with the wanted arguments; return the function, whether it takes a third, and one named mask."""
    if not callable(function):
        raise TypeError(f"from_functions: {name} must be a function ({', '.join(wanted)}, ...), got {function!r}")
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # without a signature, as some written in C
        return function, False, False
    by_place = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "mask"]
    any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    if len(by_place) < len(wanted) and not any_number:
        raise TypeError(f"from_functions: {name} must take {', '.join(wanted)}, and takes {', '.join(parameters) or 'nothing'}")
    return function, any_number or len(by_place) > len(wanted), "mask" in parameters
