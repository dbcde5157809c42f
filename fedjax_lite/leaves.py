"""Which leaves of a model: rules over their paths, and trees that are split by them."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr

from fedjax_lite.base import Tree
from fedjax_lite.models import Model
from fedjax_lite.models.model import in_two
from fedjax_lite.refuse import short
from fedjax_lite.tree import paths_of

__all__ = ["Rule", "besides", "chosen", "last_layer", "merge", "paths_of", "split"]

Rule = str | Callable[[str, Any], bool]
NAMED = {
    "all": ".*",
    "none": "(?!)",
    "norm layers": r"(.*/)?([^/]*norm[^/]*|bn[0-9_]*)(/.*)?",
}


def chosen(where: str, rule: Any, params: Tree, some: bool = True) -> Tree:
    """Return a tree of booleans like `params`: which leaves a rule chooses.

    Args:
        where: what the rule is of, for errors.
        rule: a regular expression for whole paths ("Dense_2/.*"), a name ("all", "none", "norm layers": of paths with a part that holds
            norm, or is bn and a number), or a predicate `(path, leaf) -> bool`.
        some: whether a rule that chooses no leaf, or every leaf, is refused.

    Raises:
        TypeError: for another rule.
        ValueError: for a text that is no regular expression, and a rule that chooses none or all where some are needed; with the paths.

    >>> model = {"Dense_0": jnp.zeros(2), "BatchNorm_0": jnp.zeros(2)}
    >>> chosen("fedbn: personal", "norm layers", model)
    {'BatchNorm_0': True, 'Dense_0': False}
    >>> chosen("fedper: personal", lambda path, leaf: path == "Dense_0", model)
    {'BatchNorm_0': False, 'Dense_0': True}
    """
    paths, matches = paths_of(params), predicate(where, rule)
    found = [bool(matches(path, leaf)) for path, leaf in zip(paths, jax.tree.leaves(params), strict=True)]
    if some and len(set(found)) == 1:
        which = "every leaf" if found[0] else "no leaf"
        raise ValueError(f"{where}={rule!r} chooses {which}, and some are needed; the model's leaves are {short(', '.join(paths))}")
    return jax.tree.unflatten(jax.tree.structure(params), found)


def predicate(where: str, rule: Any) -> Callable[[str, Any], bool]:
    """Return a rule as a function `(path, leaf) -> bool`.

    Raises:
        TypeError, ValueError: as `chosen` does.
    """
    if callable(rule):
        return rule
    if not isinstance(rule, str):
        raise TypeError(f"{where} must be a regular expression, a name or a function (path, leaf) -> bool, got {rule!r}")
    try:
        pattern = re.compile(NAMED.get(rule, rule), re.IGNORECASE if rule in NAMED else 0)
    except re.error as error:
        names = ", ".join(map(repr, NAMED))
        raise ValueError(f"{where}={rule!r} is no regular expression ({error}) and none of {names}") from None
    return lambda path, leaf: pattern.fullmatch(path) is not None


def besides(rule: Rule) -> Rule:
    """A rule that chooses the other leaves.

    >>> chosen("learns", besides("head"), {"body": 0.0, "head": 0.0})
    {'body': True, 'head': False}
    """
    matches = predicate("besides: rule", rule)
    return lambda path, leaf: not matches(path, leaf)


def last_layer(model: Model, example: Tree) -> Rule:
    """A rule that chooses the leaves which a model's head reads, whatever their names.

    Raises:
        ValueError: for a model without a head.

    >>> import fedjax_lite as fl
    >>> example = {"x": jnp.zeros(4)}
    >>> model = fl.models.mlp((3,))
    >>> rule = last_layer(model, example)
    >>> [path for path in ("Dense_0/bias", "Dense_1/bias", "Dense_1/kernel") if rule(path, None)]
    ['Dense_1/bias', 'Dense_1/kernel']
    """
    features, head = in_two("last_layer", model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], example)
    inputs = jax.eval_shape(features, shapes, batch, None)
    jaxpr = jax.make_jaxpr(head)(shapes, inputs).jaxpr
    _, read = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    named = {path for path, needed in zip(paths_of(shapes), read, strict=False) if needed}  # the features come behind the leaves
    return lambda path, leaf: path in named


def split(mask: Tree, params: Tree) -> tuple[Tree, Tree]:
    """Split a tree into the leaves where `mask` is True and the others; each keeps the structure, with None for the other's leaves.

    >>> split({"a": True, "b": False}, {"a": 1, "b": 2})
    ({'a': 1, 'b': None}, {'a': None, 'b': 2})
    """
    return jax.tree.map(lambda on, x: x if on else None, mask, params), jax.tree.map(lambda on, x: None if on else x, mask, params)


def merge(*parts: Tree) -> Tree:
    """Put the leaves of split trees together again.

    >>> merge({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """
    return jax.tree.map(lambda *leaves: next((x for x in leaves if x is not None), None), *parts, is_leaf=lambda x: x is None)
