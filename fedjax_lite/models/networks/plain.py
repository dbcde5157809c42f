"""Convolutional networks without shortcuts: blocks of convolutions, each with its pooling, then dense layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_lite.base import Whole
from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.model import Model
from fedjax_lite.models.networks.images import as_images, refuse_nothing
from fedjax_lite.models.normalisation import GroupNorm
from fedjax_lite.models.pooling import max_pool
from fedjax_lite.refuse import a_count


class PlainCNN(nn.Module):
    """Convolutions with ReLU, max pooling 2x2 after each block of them, dense layers with ReLU, and a linear output."""

    blocks: Sequence[Sequence[int]]  # widths of the convolutions before each pooling
    hidden: Sequence[int]
    classes: int
    window: int = 3
    padding: str = "SAME"
    margin: int = 0  # zeros around the image
    dropout: Sequence[float] = (0.0, 0.0)  # before and after dense layers
    image: tuple[int, int, int] | None = None  # None: any
    groups: int = 0  # of group normalisation after each convolution; 0: none
    apart: int | None = None  # blocks that run on one example after another; None: all
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x, train=False):
        images = as_images(x, self.image)
        around = ((0, 0), (self.margin, self.margin), (self.margin, self.margin), (0, 0))
        x = example_by_example(self.early, jnp.pad(images, around) if self.margin else images)
        x = self.late(x)
        refuse_nothing(x, images)
        x = nn.Dropout(self.dropout[0], deterministic=not train)(x).reshape(x.shape[0], math.prod(x.shape[1:]))
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
            x = nn.Dropout(self.dropout[1], deterministic=not train)(x)
        return nn.Dense(self.classes)(x)

    def early(self, x: jax.Array) -> jax.Array:
        """Run the blocks whose images are large."""
        return self._run(x, 0, len(self.blocks) if self.apart is None else self.apart)

    def late(self, x: jax.Array) -> jax.Array:
        """Run the other blocks."""
        return x if self.apart is None else self._run(x, self.apart, len(self.blocks))

    def _run(self, x: jax.Array, first: int, last: int) -> jax.Array:
        """Run some blocks. ReLU after pooling equals ReLU before pooling, on a quarter of the elements."""
        number = sum(map(len, self.blocks[:first]))
        for widths in self.blocks[first:last]:
            for position, width in enumerate(widths, 1):
                conv = nn.Conv(
                    width,
                    (self.window, self.window),
                    padding=self.padding,
                    kernel_init=self.kernel_init,
                    conv_general_dilated=matmul_conv,
                    name=f"Conv_{number}",
                )
                x = conv(x)
                x = GroupNorm(self.groups, name=f"GroupNorm_{number}")(x) if self.groups else x
                x = nn.relu(x if position < len(widths) else max_pool(x, (2, 2), (2, 2)))
                number += 1
        return x


def plain_cnn(name: str, classes: Whole, dropout: Sequence[float] | None = None, **fields: Any) -> Model:
    """Check the arguments of a network and make its model, with the last dense layer as its head."""
    rates = (0.0, 0.0) if dropout is None else tuple(dropout)
    if len(rates) != 2 or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"{name}: dropout must be two rates in [0, 1), or None, got {dropout}")
    outputs = a_count(name, "classes", classes)
    network = PlainCNN(classes=outputs, dropout=rates, **fields)
    return from_linen(network, head=(f"Dense_{len(network.hidden)}", nn.Dense(outputs)))
