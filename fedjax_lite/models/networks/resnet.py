"""Residual networks with group normalisation, since batch normalisation's statistics differ between clients."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fedjax_lite.base import Whole
from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.model import Model
from fedjax_lite.models.networks.images import as_images
from fedjax_lite.models.normalisation import GroupNorm, check_groups
from fedjax_lite.models.pooling import max_pool
from fedjax_lite.refuse import a_count


def _conv(width: int, window: int, stride: int, **more: Any) -> nn.Conv:
    """Make a convolution without bias, its start as He et al. (2015) have it."""
    init, margin = nn.initializers.variance_scaling(2.0, "fan_out", "normal"), window // 2
    return nn.Conv(width, (window, window), stride, margin, use_bias=False, kernel_init=init, conv_general_dilated=matmul_conv, **more)


class _Block(nn.Module):
    width: int
    stride: int
    groups: int
    shortcut: str

    @nn.compact
    def __call__(self, x):
        y = nn.relu(GroupNorm(self.groups)(_conv(self.width, 3, self.stride)(x)))
        y = GroupNorm(self.groups)(_conv(self.width, 3, 1)(y))
        if x.shape == y.shape:
            return nn.relu(x + y)
        if self.shortcut == "projection":
            return nn.relu(GroupNorm(self.groups)(_conv(self.width, 1, self.stride)(x)) + y)
        more = self.width - x.shape[-1]
        return nn.relu(jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (0, more))) + y)


class _ResNet(nn.Module):
    widths: Sequence[int]  # of the stages
    blocks: int  # of a stage
    classes: int
    groups: int
    shortcut: str
    stem: str

    @nn.compact
    def __call__(self, x):
        window, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = nn.relu(GroupNorm(self.groups)(_conv(self.widths[0], window, stride)(as_images(x))))
        if self.stem == "imagenet":
            x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, width in enumerate(self.widths):
            for number in range(self.blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                x = _Block(width, stride, self.groups, self.shortcut, name=f"Block_{stage * self.blocks + number}")(x)
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


def resnet18(classes: Whole = 10, *, groups: Whole = 2, stem: str = "cifar", widths: Sequence[Whole] = (64, 128, 256, 512)) -> Model:
    """ResNet-18 with group normalisation in place of batch normalisation.

        x -> relu(x + norm(conv(relu(norm(conv(x))))))

    A first convolution, four stages of two such blocks, the mean over pixels, a dense layer of `classes`. Where width or size change,
    a convolution 1x1 with normalisation is the shortcut. Of ten classes it has 11,173,962 parameters, 11,181,642 with
    `stem="imagenet"`, and so of 100 classes 11,227,812.

    Args:
        classes: outputs.
        groups: groups of channels normalised together.
        stem: the first convolution. "cifar": 3x3. "imagenet": 7x7 with stride 2, then max pooling 3x3 with stride 2, as in torchvision
            and, for 32x32 images too, in many published tables; a fifteenth of the products.
        widths: channels of the four stages.

    Returns:
        A model of images `[height, width, channels]` or `[height, width]`, of any size.

    Raises:
        ValueError: for another stem, other than four widths, and groups that do not divide them.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2016), table 1; two groups as Hsieh et al., "The Non-IID Data
    Quagmire of Decentralized Machine Learning" (2020), and Reddi et al., "Adaptive Federated Optimization" (2021), whose table 4 has
    the 11,227,812 parameters.

    >>> import jax
    >>> example = {"x": jnp.zeros((24, 24, 3))}
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(resnet18(100, stem="imagenet").init, jax.random.key(0), example)))
    11227812
    """
    if stem not in ("cifar", "imagenet"):
        raise ValueError(f'resnet18: stem must be "cifar" or "imagenet", got {stem!r}')
    return _resnet("resnet18", classes, widths, 4, groups, blocks=2, shortcut="projection", stem=stem)


def resnet20(classes: Whole = 10, *, groups: Whole = 2, shortcut: str = "padding", widths: Sequence[Whole] = (16, 32, 64)) -> Model:
    """ResNet-20, the small residual network for CIFAR, with group normalisation in place of batch normalisation.

    A convolution 3x3, three stages of three blocks as in `resnet18`, the mean over pixels, a dense layer of `classes`. Of ten classes it
    has 269,722 parameters, with projections 272,474.

    Args:
        classes: outputs.
        groups: groups of channels normalised together.
        shortcut: what a block adds to its result where width and size change. "padding": every second pixel, with zeros as further
            channels (option A). "projection": a convolution 1x1 with normalisation (option B).
        widths: channels of the three stages.

    Returns:
        A model of images `[height, width, channels]` or `[height, width]`, of any size.

    Raises:
        ValueError: for another shortcut, other than three widths, widths that fall where they are padded, and groups that do not divide
            them.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2 with n = 3, and table 6.

    >>> import jax
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(resnet20().init, jax.random.key(0), {"x": jnp.zeros((32, 32, 3))})))
    269722
    """
    if shortcut not in ("padding", "projection"):
        raise ValueError(f'resnet20: shortcut must be "padding" or "projection", got {shortcut!r}')
    return _resnet("resnet20", classes, widths, 3, groups, blocks=3, shortcut=shortcut, stem="cifar")


def _resnet(name: str, classes: Whole, widths: Sequence[Whole], stages: int, groups: Whole, **fields: Any) -> Model:
    """Check the arguments of a network and make its model, with the dense layer as its head."""
    sizes = tuple(a_count(name, "widths", width) for width in widths)
    if len(sizes) != stages:
        raise ValueError(f"{name}: widths must be those of {stages} stages, got {len(sizes)}: {sizes}")
    if fields["shortcut"] == "padding" and list(sizes) != sorted(sizes):
        raise ValueError(f'{name}: widths that fall cannot be padded, got {sizes}: let them rise, or take shortcut="projection"')
    number, outputs = a_count(name, "groups", groups), a_count(name, "classes", classes)
    check_groups(name, number, sizes)
    network = _ResNet(widths=sizes, classes=outputs, groups=number, **fields)
    return from_linen(network, head=("Dense_0", nn.Dense(outputs)))
