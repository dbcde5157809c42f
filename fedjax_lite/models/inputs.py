"""What is done to images before a model sees them: normalisation, and in training random flips and shifts."""

from collections.abc import Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Number, Tree
from fedjax_lite.models.model import Model, leaf_of
from fedjax_lite.refuse import a_count, is_number

__all__ = ["augmented", "normalised"]


def normalised(inner: Model, means: Number | Sequence[Number], stds: Number | Sequence[Number], *, input: str = "x") -> Model:
    """A model of examples whose channels are (x - means) / stds.

    Args:
        inner: the model.
        means, stds: one number a channel, the last axis of an example, or one for all; stds are positive.
        input: the leaf of an example that is normalised.

    Raises:
        ValueError: for what are no finite numbers, stds that are not positive; when called, for another number of channels.

    >>> import fedjax_lite as fl
    >>> model = normalised(fl.models.Model(lambda key, example: (), lambda params, batch, key: batch["x"]), 0.5, [0.5, 0.25])
    >>> model.apply((), {"x": jnp.ones((1, 2))}, None).tolist()
    [[1.0, 2.0]]
    """
    of_mean, of_std = (_numbers("normalised", name, value) for name, value in (("means", means), ("stds", stds)))
    if not (of_std > 0).all():
        raise ValueError(f"normalised: stds must be positive, got {stds!r}: leave a channel that never changes out of the data")

    def change(x: jax.Array, key: Any) -> jax.Array:
        for name, value in (("means", of_mean), ("stds", of_std)):
            if value.size not in (1, x.shape[-1]):
                raise ValueError(
                    f"normalised: {name} has {value.size} numbers for examples of the shape {list(x.shape[1:])}: give one a channel"
                )
        return (x - jnp.broadcast_to(of_mean, x.shape)) / jnp.broadcast_to(of_std, x.shape)

    return _before(inner, input, change)


def augmented(inner: Model, *, flip: Number = 0.5, crop: Number = 4, crop_probability: Number = 1.0, input: str = "x") -> Model:
    """A model that in training sees images mirrored and shifted at random, each example on its own; in evaluation as they are.

    An image is mirrored left to right with probability `flip`. With `crop_probability` it is padded with `crop` zeros on every side, and
    a window of its own size is cut out at a place drawn uniformly from the (2 crop + 1)^2 that there are.

    Args:
        inner: the model, of images `[height, width, channels]`. Normalise outside, `normalised(augmented(model), ...)`, so that the zeros
            are the mean.
        flip: probability of a mirror image, in [0, 1].
        crop: pixels of padding; 0 for none.
        crop_probability: in [0, 1]; 1 in He et al., 0.5 in the code of FedSpeed (Sun et al., 2023).
        input: the leaf of an example that is the image.

    Raises:
        ValueError: for numbers out of range; when called, for examples that are no images.

    >>> import fedjax_lite as fl
    >>> model = augmented(fl.models.Model(lambda key, example: (), lambda params, batch, key: batch["x"]), flip=1.0, crop=0)
    >>> model.apply((), {"x": jnp.arange(3.0).reshape(1, 1, 3, 1)}, jax.random.key(0)).ravel().tolist()
    [2.0, 1.0, 0.0]

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
    """
    for name, value in (("flip", flip), ("crop_probability", crop_probability)):
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"augmented: {name} must be a probability in [0, 1], got {value!r}")
    pixels = a_count("augmented", "crop", crop, least=0)

    def change(x: jax.Array, key: Any) -> jax.Array:
        if key is None:
            return x
        if x.ndim != 4:
            raise ValueError(f"augmented: examples must be images [height, width, channels], got the shape {list(x.shape[1:])}")
        mirror, shift, place = jax.random.split(key, 3)
        some = jax.random.bernoulli(mirror, flip, (len(x), 1, 1, 1))
        x = jnp.where(some, x[:, :, ::-1], x)
        if not pixels:
            return x
        shifted = jax.random.bernoulli(shift, crop_probability, (len(x), 1))
        first = jnp.where(shifted, jax.random.randint(place, (len(x), 2), 0, 2 * pixels + 1), pixels)
        padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
        return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), x.shape[1:]))(padded, first)

    return _before(inner, input, change)


def _before(inner: Model, input: str, change: Any) -> Model:
    """Make a model that changes its inputs, with a key in training, before `inner` sees them."""

    def changed(batch: Tree, key: Any) -> tuple[Tree, Any]:
        ours, theirs = (None, None) if key is None else jax.random.split(key)
        return {**batch, input: change(leaf_of(batch, "input", input), ours)}, theirs

    def calling(function: Any) -> Any:
        @wraps(function)  # so that it takes a mask where `function` does
        def call(params: Tree, batch: Tree, key: Any = None, **mask: Any) -> Any:
            batch, key = changed(batch, key)
            return function(params, batch, key, **mask)

        return call

    def init(key: Any, example: Tree) -> Tree:
        x = jnp.asarray(leaf_of(example, "input", input))
        return inner.init(key, {**example, input: change(x[None], None)[0]})

    parts = {name: calling(part) for name in ("apply", "features", "train") if (part := getattr(inner, name)) is not None}
    return inner._replace(init=init, **parts)


def _numbers(function: str, name: str, value: Any) -> np.ndarray:
    """Return one number, or a number a channel, as an array."""
    values = list(value) if isinstance(value, Sequence) else [value]
    if not values or not all(is_number(x) and np.isfinite(x) for x in values):
        raise ValueError(f"{function}: {name} must be a number, or one a channel, got {value!r}")
    return np.array(value, np.float32)
