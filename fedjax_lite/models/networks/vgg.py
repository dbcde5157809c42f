"""VGG networks for small images."""

from collections.abc import Sequence

import flax.linen as nn

from fedjax_lite.base import Whole
from fedjax_lite.models.model import Model
from fedjax_lite.models.networks.plain import plain_cnn
from fedjax_lite.models.normalisation import check_groups
from fedjax_lite.refuse import a_count

_BLOCKS = 1, 1, 2, 2, 2  # convolutions before each pooling: configuration A


def vgg11(
    classes: Whole = 10,
    *,
    widths: Sequence[Whole] = (64, 128, 256, 256, 512, 512, 512, 512),
    hidden: Sequence[Whole] = (),
    groups: Whole = 0,
) -> Model:
    """VGG-11 for images of 32x32, without normalisation or with group normalisation.

    Eight convolutions 3x3 with padding and ReLU, max pooling 2x2 after the first, second, fourth, sixth and eighth, dense layers with
    ReLU, a dense layer of `classes`. Of ten classes it has 9,225,610 parameters, with groups 9,231,114; with
    `widths=(32, 64, 128, 128, 128, 128, 128, 128), hidden=(128, 128)` it is the VGG11* of Sattler et al., 865,482.

    Args:
        classes: outputs.
        widths: channels of the eight convolutions.
        hidden: width of each dense layer before the last; 32x32 images arrive there as one vector of the last width.
        groups: groups of channels normalised together, after each convolution; 0 for no normalisation.

    Returns:
        A model of images `[height, width, channels]` or `[height, width]`, 32 x 32 or larger.

    Raises:
        ValueError: for other than eight widths, and groups that do not divide them.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), table 1, column A, with
    one dense layer as is usual for CIFAR; Sattler et al., "Robust and Communication-Efficient Federated Learning from Non-i.i.d. Data"
    (2020), section VI.

    >>> import jax, jax.numpy as jnp
    >>> sum(x.size for x in jax.tree.leaves(jax.eval_shape(vgg11().init, jax.random.key(0), {"x": jnp.zeros((32, 32, 3))})))
    9225610
    """
    sizes = [a_count("vgg11", "widths", width) for width in widths]
    if len(sizes) != sum(_BLOCKS):
        raise ValueError(f"vgg11: widths must be those of eight convolutions, got {len(sizes)}: {tuple(widths)}")
    if number := a_count("vgg11", "groups", groups, least=0):
        check_groups("vgg11", number, sizes)
    ends = [sum(_BLOCKS[:k]) for k in range(len(_BLOCKS) + 1)]
    return plain_cnn(
        "vgg11",
        classes,
        blocks=tuple(tuple(sizes[begin:end]) for begin, end in zip(ends, ends[1:])),
        hidden=tuple(a_count("vgg11", "hidden", width) for width in hidden),
        groups=number,
        apart=2,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    )
