"""Small networks of the field."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_lite.base import Key, Tree


class Model(NamedTuple):
    """A model as two pure functions."""

    init: Callable[[Key, Tree], Tree]  # key, one example without a batch axis -> params
    apply: Callable[[Tree, Tree, Key | None], jax.Array]  # params, batch of examples, key -> outputs [batch, ...]; key None: evaluation


def from_linen(module: nn.Module, *, input: str = "x") -> Model:
    """Any flax linen module of a call `module(x)` or `module(x, train=...)` as a model.

    Args:
        module: the module; it may use the random stream "dropout", and must keep no state beside its parameters
            (batch statistics of clients have no meaning for a server; use GroupNorm or LayerNorm).
        input: the leaf of an example that is its input.

    >>> model = from_linen(nn.Dense(10))
    >>> jax.tree.map(jnp.shape, model.init(jax.random.key(0), {"x": jnp.zeros(64)}))
    {'bias': (10,), 'kernel': (64, 10)}
    """
    has_train = "train" in inspect.signature(module.__call__).parameters

    evaluating: dict[str, Any] = {"train": False} if has_train else {}

    def init(key, example):
        inputs = jnp.asarray(example[input])[None]
        variables = module.init(key, inputs, **evaluating)
        if set(variables) - {"params"}:
            raise ValueError(
                f"the module keeps state beside its parameters ({sorted(set(variables) - {'params'})}): use GroupNorm or LayerNorm"
            )
        return variables.get("params", {})

    def apply(params, batch, key=None):
        mode = evaluating if key is None else {name: True for name in evaluating}
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, batch[input], rngs=rngs, **mode)

    return Model(init, apply)


class _MLP(nn.Module):
    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def mlp(hidden: Sequence[int] = (200, 200), *, classes: int = 10) -> Model:
    """Fully connected ReLU layers and a linear output: `mlp((200, 200))` is McMahan's 2NN, `mlp(())` softmax regression.

    Args:
        hidden: width of each hidden layer.
        classes: outputs.
    """
    if any(width < 1 for width in hidden) or classes < 1:
        raise ValueError(f"mlp: widths and classes must be at least 1, got hidden={tuple(hidden)}, classes={classes}")
    return from_linen(_MLP(tuple(hidden), classes))


class _Linear(nn.Module):
    outputs: int
    bias: bool

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs, use_bias=self.bias, kernel_init=nn.initializers.zeros)(x.reshape(x.shape[0], -1))


def linear(outputs: int = 1, *, bias: bool = True) -> Model:
    """Linear regression from zero: y = x W + b, outputs `[batch, outputs]`."""
    if outputs < 1:
        raise ValueError(f"linear: outputs must be at least 1, got {outputs}")
    return from_linen(_Linear(outputs, bias))
