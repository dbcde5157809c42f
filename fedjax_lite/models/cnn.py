"""The convolutional networks of federated learning's benchmarks."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax

from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.model import Model
from fedjax_lite.models.pooling import max_pool


class _CNN(nn.Module):
    blocks: Sequence[Sequence[int]]  # widths of the convolutions before each pooling
    padding: str
    hidden: int
    classes: int
    dropout: tuple[float, float]
    image: tuple[int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if x[0].size != math.prod(self.image):
            size = " x ".join(map(str, self.image))
            raise ValueError(f"the model is for images of {size}, got examples of the shape {list(x.shape[1:])}: take another model")
        x = x.reshape(x.shape[0], *self.image)
        x = example_by_example(self.features, x)
        x = nn.Dropout(self.dropout[0], deterministic=not train)(x)
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.dropout[1], deterministic=not train)(x)
        return nn.Dense(self.classes)(x)

    def features(self, x: jax.Array) -> jax.Array:
        """Run the convolutional layers. ReLU after pooling equals ReLU before pooling, on a quarter of the elements."""
        for widths in self.blocks:
            for position, width in enumerate(widths, 1):
                x = nn.Conv(width, (3, 3), padding=self.padding, conv_general_dilated=matmul_conv)(x)
                x = nn.relu(x if position < len(widths) else max_pool(x, (2, 2), (2, 2)))
        return x


def emnist_cnn(classes: int = 62, *, dropout: tuple[float, float] | None = (0.25, 0.5)) -> Model:
    """FedJAX's network for EMNIST, 1.2 million parameters.

    Convolutions 3x3 of 32 and 64 channels without padding, ReLU after each, max pooling 2x2, dropout, a dense layer of 128
    with ReLU, dropout, a dense layer of `classes`.

    Args:
        classes: outputs; 62 characters, or 10 digits.
        dropout: rates after pooling and after the dense layer, in training (where `apply` is given a key); None for none.

    Returns:
        A model of images `[28, 28, 1]`, `[28, 28]` or `[784]`.

    Source: Ro, Suresh and Wu, "FedJAX: Federated learning simulation with JAX" (2021), fedjax/models/emnist.py;
    Reddi et al., "Adaptive Federated Optimization" (2021), table 4.

    >>> import jax.numpy as jnp
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(emnist_cnn().init, jax.random.key(0), {"x": jnp.zeros((28, 28, 1))})))
    1206590
    """
    return _model("emnist_cnn", ((32, 64),), "VALID", 128, classes, dropout, (28, 28, 1))


def cifar_cnn(classes: int = 10, *, dropout: tuple[float, float] | None = None) -> Model:
    """A VGG-like network for CIFAR, 2.2 million parameters.

    Twice: two convolutions 3x3 with padding and ReLU, of 32 and then of 64 channels, and max pooling 2x2. Then dropout, a dense
    layer of 512 with ReLU, dropout, a dense layer of `classes`.

    Args:
        classes: outputs; 10 or 100.
        dropout: rates before and after the dense layer of 512, in training; None for none.

    Returns:
        A model of images `[32, 32, 3]`.

    >>> import fedjax_lite as fl, jax.numpy as jnp
    >>> params = jax.eval_shape(fl.models.cifar_cnn().init, jax.random.key(0), {"x": jnp.zeros((32, 32, 3))})
    >>> sum(x.size for x in jax.tree.leaves(params))
    2168362
    """
    return _model("cifar_cnn", ((32, 32), (64, 64)), "SAME", 512, classes, dropout, (32, 32, 3))


def _model(name, blocks, padding, hidden, classes, dropout, image) -> Model:
    """Check the arguments of a network and make its model, with the last dense layer as its head."""
    rates = (0.0, 0.0) if dropout is None else tuple(dropout)
    if classes < 1:
        raise ValueError(f"{name}: classes must be at least 1, got {classes}")
    if len(rates) != 2 or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"{name}: dropout must be two rates in [0, 1), or None, got {dropout}")
    return from_linen(_CNN(blocks, padding, hidden, classes, rates, image), head=("Dense_1", nn.Dense(classes)))
