"""Public examples, which server and clients all have and distil on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import check_examples, length_of, on_host
from fedjax_lite.refuse import whole

__all__ = ["Public", "Shown", "check_public", "public_of", "public_set"]


class Public(NamedTuple):
    """Public examples, their labels where known, and how many a round takes; made by `public_set`."""

    examples: Tree  # [examples, ...]
    labels: Int[Array, " examples"] | None = None
    each_round: int | None = None

    @property
    def taken(self) -> int:
        """The number of examples that a round takes, all or `each_round`."""
        return len(jax.tree.leaves(self.examples)[0]) if self.each_round is None else self.each_round

    def of(self, round: Any, rows: Any) -> Any:
        """Return the rows of arrays `[examples, ...]` that a round takes: the next `each_round`, with the first after the last."""
        if self.each_round is None:
            return rows
        length = len(jax.tree.leaves(self.examples)[0])
        first = _times(jnp.asarray(round, jnp.int32) % length, self.each_round, length)
        return tree.take(rows, (first + jnp.arange(self.each_round, dtype=jnp.int32)) % length)


def _times(number: Int[Array, ""], factor: int, modulus: int) -> Int[Array, ""]:
    """Compute number * factor % modulus for a number below the modulus, by doubling where the product may not fit 32 bits."""
    if factor * modulus < 2**31:
        return number * factor % modulus
    product, number = jnp.uint32(0), number.astype(jnp.uint32)
    while factor:
        product = (product + number) % modulus if factor % 2 else product
        number, factor = (number + number) % modulus, factor // 2
    return product.astype(jnp.int32)


class Shown(NamedTuple):
    """Public examples in a server's state and its broadcast, so that compiled programs have them as an argument, not as a constant."""

    examples: Tree
    round: Int[Array, ""] | int = 0  # the round whose soft labels of these examples were agreed on last


def public_set(examples: Tree, labels: Any = None, each_round: int | None = None) -> Public:
    """Make a set of public examples to distil on.

    Args:
        examples: leaves `[examples, ...]`; a label among the leaves is not used.
        labels: `[examples]`, the examples' classes, where a simulation knows them; for metrics, and for `by_accuracy` alone.
        each_round: examples a round takes, in order, with the first after the last; None: all.

    Raises:
        ValueError: for no examples, leaves of unequal lengths, NaN or Inf, another number of labels, `each_round` beyond the examples.

    >>> three = public_set({"x": jnp.arange(3.0)}, each_round=2)
    >>> [three.of(round, three.examples)["x"].tolist() for round in range(2)]
    [[0.0, 1.0], [2.0, 0.0]]
    """
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(examples)):  # a study checks its examples before tracing
        examples = on_host(examples, "public")
        length = length_of(examples, "public")
        if not length:
            raise ValueError("public: there are no public examples: give at least one")
        examples = jax.tree.map(jnp.asarray, check_examples(examples, np.array([length])))
    length = len(jax.tree.leaves(examples)[0])
    if labels is not None and jnp.shape(labels) != (length,):
        raise ValueError(f"public: labels of the shape {jnp.shape(labels)} for {length} examples: give one for each")
    if each_round is not None:
        whole("public", "each_round", each_round, least=1)
        if each_round > length:
            raise ValueError(f"public: each_round={each_round} is more than the {length} public examples: lower it")
    return Public(examples, None if labels is None else jnp.asarray(labels), each_round)


def public_of(given: Any) -> Public:
    """Return `given` as a public set; bare examples become a set without labels."""
    return given if isinstance(given, Public) else public_set(given)


def logits_shape(apply: Any, params: Tree, public: Public, whose: str) -> jax.ShapeDtypeStruct:
    """Return the shape of a model's logits of the public examples that a round takes.

    Raises:
        ValueError: for examples of another shape than the model's, outputs that are not `[examples, classes]`.
    """
    shapes = [x.shape for x in jax.tree.leaves(public.examples)]
    try:
        logits = jax.eval_shape(lambda params, examples: apply(params, public.of(0, examples), None), params, public.examples)
    except Exception as error:
        raise ValueError(f"public: examples of the shapes {shapes} are none for {whose} model: {str(error).splitlines()[0]}") from error
    if not isinstance(logits, jax.ShapeDtypeStruct) or logits.ndim != 2 or logits.shape[0] != public.taken:
        raise ValueError(
            f"public: {whose} model must give logits [examples, classes], of {shapes} it gives {jax.tree.map(jnp.shape, logits)}"
        )
    return logits


def check_public(server: Tree, test: Any) -> None:
    """Refuse public examples in a server's state of which half or more are test examples too, where training would meet the test.

    Raises:
        ValueError: with the number of shared examples.
    """
    for public in jax.tree.leaves(server, is_leaf=lambda x: isinstance(x, Shown)):
        if isinstance(public, Shown) and test is not None:
            check_apart(public.examples, test.examples)


def check_apart(examples: Tree, test: Tree) -> None:
    """Refuse public examples of which half or more are test examples too.

    Raises:
        ValueError: with the number of shared examples.
    """
    rows, tested = _rows(examples), set(_rows(test))
    both = sum(row in tested for row in rows)
    if 2 * both >= len(rows):
        raise ValueError(f"public: {both} of {len(rows)} public examples are the test's: take others, or some of the training's")


def _rows(examples: Tree) -> list[bytes]:
    """Return each example without its label "y", as bytes."""
    inputs = {name: x for name, x in examples.items() if name != "y"} if isinstance(examples, dict) else examples
    leaves = [np.asarray(x) for x in jax.tree.leaves(inputs)]
    return [b"".join(x[i].tobytes() for x in leaves) for i in range(len(leaves[0]))]
