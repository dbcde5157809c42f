"""Examples as images, channels last."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def as_images(x: ArrayLike, image: tuple[int, int, int] | None = None) -> jax.Array:
    """Return a batch as `[batch, height, width, channels]`: of exactly the sizes `image`, or of any.

    Raises:
        ValueError: for examples that are no such image.

    >>> as_images(jnp.zeros((2, 784)), (28, 28, 1)).shape, as_images(jnp.zeros((2, 8, 9))).shape
    ((2, 28, 28, 1), (2, 8, 9, 1))
    """
    x = jnp.asarray(x)
    shape = list(x.shape[1:])
    if image is not None:
        if math.prod(shape) != math.prod(image):
            size = " x ".join(map(str, image))
            raise ValueError(f"the model is for images of {size}, got examples of the shape {shape}: take another model")
        return x.reshape(x.shape[0], *image)
    if x.ndim not in (3, 4):
        raise ValueError(
            f"the model is for images [height, width, channels] or [height, width], got examples of the shape {shape}: reshape them"
        )
    return x.reshape(*x.shape[:3], -1)


def refuse_nothing(x: jax.Array, images: jax.Array) -> None:
    """Refuse `images` of which convolutions and pooling leave nothing in `x`.

    Raises:
        ValueError: with the size of the images.
    """
    if 0 in x.shape[1:]:
        height, width = images.shape[1:3]
        raise ValueError(f"images of {height} x {width} are too small for the model: its convolutions and pooling leave nothing of them")
