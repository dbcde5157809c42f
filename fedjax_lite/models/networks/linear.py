"""Fully connected networks and linear models."""

import math
from collections.abc import Sequence

import flax.linen as nn

from fedjax_lite.base import Whole
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.model import Model
from fedjax_lite.refuse import a_count


class _MLP(nn.Module):
    hidden: Sequence[int]
    outputs: int
    norm: str = "none"

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for width in self.hidden:
            x = nn.Dense(width)(x)
            if self.norm == "batch":
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            elif self.norm == "layer":
                x = nn.LayerNorm()(x)
            x = nn.relu(x)
        return nn.Dense(self.outputs)(x)


def mlp(hidden: Sequence[Whole] = (200, 200), *, classes: Whole = 10, norm: str = "none", statistics: str = "averaged") -> Model:
    """Fully connected ReLU layers and a linear output: `mlp((200, 200))` is McMahan's 2NN, `mlp(())` softmax regression.

    Args:
        hidden: width of each hidden layer.
        classes: outputs.
        norm: "batch" or "layer" normalisation in front of each ReLU, or "none".
        statistics: "averaged" or "frozen", what training does with the running statistics of "batch": as in `fl.models.from_linen`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> params = jax.eval_shape(fl.models.mlp((200, 200)).init, jax.random.key(0), {"x": jnp.zeros(784)})
    >>> sum(x.size for x in jax.tree.leaves(params))
    199210
    """
    widths, outputs = tuple(a_count("mlp", "hidden", width) for width in hidden), a_count("mlp", "classes", classes)
    if norm not in ("none", "batch", "layer"):
        raise ValueError(f'mlp: norm must be "none", "batch" or "layer", got {norm!r}')
    return from_linen(_MLP(widths, outputs, norm), head=(f"Dense_{len(widths)}", nn.Dense(outputs)), statistics=statistics)


class _Linear(nn.Module):
    outputs: int
    bias: bool

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs, use_bias=self.bias, kernel_init=nn.initializers.zeros)(x.reshape(x.shape[0], math.prod(x.shape[1:])))


def logistic(classes: Whole = 10) -> Model:
    """Softmax regression from zero, the convex model of the field's theory and first tables.

        p(y | x) = softmax(x W + b)_y,   W = 0, b = 0 at first

    The same function as `mlp(())`, which starts at random weights, and as `linear(classes)`, which by default has one output, for
    regression. A convex loss has no use for a random start, and that of zeros is every class's equal chance.

    Args:
        classes: outputs.

    Returns:
        A model of examples of any shape, d numbers each, with (d + 1) classes parameters: 7,850 for MNIST; for Stack Overflow's tags
        of 10,000 words and 500 tags 5,000,500 (Reddi et al., "Adaptive Federated Optimization", 2021, table 4). An example's numbers
        are its features, as methods that look between have them.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> model = fl.models.logistic(4)
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros((28, 28))})
    >>> sum(x.size for x in jax.tree.leaves(params)), model.apply(params, {"x": jnp.ones((1, 28, 28))}, None).tolist()
    (3140, [[0.0, 0.0, 0.0, 0.0]])

    Cox, "The Regression Analysis of Binary Sequences", 1958; federated by Li et al., "Federated Optimization in Heterogeneous
    Networks", 2020, section 5.
    """
    outputs = a_count("logistic", "classes", classes)
    return from_linen(_Linear(outputs, True), head=("Dense_0", nn.Dense(outputs)))


def linear(outputs: Whole = 1, *, bias: bool = True) -> Model:
    """Linear regression from zero: y = x W + b, outputs `[batch, outputs]`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> model = fl.models.linear(2)
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
    >>> jax.tree.map(jnp.shape, params), model.apply(params, {"x": jnp.ones((1, 3))}).tolist()
    ({'Dense_0': {'bias': (2,), 'kernel': (3, 2)}}, [[0.0, 0.0]])
    """
    return from_linen(_Linear(a_count("linear", "outputs", outputs), bias))
