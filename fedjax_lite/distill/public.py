"""Public examples: what server and clients all have, and distil on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import checked, length_of

__all__ = ["Public", "check_public"]


class Public(NamedTuple):
    """Public examples in a server's state, so that they are an argument of compiled programs and no constant in them."""

    examples: Tree


def public_of(examples: Tree) -> Public:
    """Public examples, once they are known to be some.

    Raises:
        ValueError: for none, leaves of unequal lengths, NaN or Inf.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(examples)):  # a study's, which were looked at when they were loaded
        return Public(examples)
    examples = jax.tree.map(np.asarray, examples)
    length = length_of(examples, "public")
    if not length:
        raise ValueError("public: there are no public examples: give at least one")
    return Public(jax.tree.map(jnp.asarray, checked(examples, np.array([length]))))


def fitting(apply: Any, params: Tree, public: Public, whose: str) -> jax.ShapeDtypeStruct:
    """What a model will say of the public examples, or an error that says why it can't.

    Raises:
        ValueError: for examples of another shape than the model's, outputs that are not `[examples, classes]`.
    """
    shapes = [x.shape for x in jax.tree.leaves(public.examples)]
    try:
        said = jax.eval_shape(lambda params, examples: apply(params, examples, None), params, public.examples)
    except Exception as error:
        raise ValueError(f"public: examples of the shapes {shapes} are none for {whose} model: {str(error).splitlines()[0]}") from error
    if not isinstance(said, jax.ShapeDtypeStruct) or said.ndim != 2 or said.shape[0] != shapes[0][0]:
        raise ValueError(
            f"public: {whose} model must give logits [examples, classes], of {shapes} it gives {jax.tree.map(jnp.shape, said)}"
        )
    return said


def check_public(server: Tree, test: Any) -> None:
    """Refuse public examples, in a server's state, of which half or more are held out for the test: what is learned from them would be
    tested on them.

    Raises:
        ValueError: with how many.
    """
    for public in jax.tree.leaves(server, is_leaf=lambda x: isinstance(x, Public)):
        if not isinstance(public, Public) or test is None:
            continue
        rows, tested = _rows(public.examples), set(_rows(test.examples))
        both = sum(row in tested for row in rows)
        if 2 * both >= len(rows):
            raise ValueError(f"public: {both} of {len(rows)} public examples are the test's: take others, or some of the training's")


def _rows(examples: Tree) -> list[bytes]:
    """Each example without its label, as bytes."""
    inputs = {name: x for name, x in examples.items() if name != "y"} if isinstance(examples, dict) else examples
    leaves = [np.asarray(x) for x in jax.tree.leaves(inputs)]
    return [b"".join(x[i].tobytes() for x in leaves) for i in range(len(leaves[0]))]
