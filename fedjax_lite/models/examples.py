"""Run layers on one example after another, which keeps their arrays in a CPU's cache."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from fedjax_lite import forms

__all__ = ["example_by_example"]


def example_by_example(layers: nn.Module | Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """`layers(x)`, on a CPU one example after another; elsewhere the whole batch at once.

    The arrays between convolutions of images of about 30 x 30 take megabytes for a batch, and for one example fit a core's cache. Layers
    that follow on small images with many channels, and dense layers, are faster on the batch: leave them outside.

    Args:
        layers: a flax linen module, or a method of the calling module, of one argument `[batch, ...]`; an example's result must not depend
            on other examples (so no batch normalisation). The layers may use the random stream "dropout".
        x: `[batch, ...]`.

    Returns:
        The array `[batch, ...]` that `layers(x)` returns; dropout draws other numbers.

    Raises:
        ValueError: layers of another kind, whose parameters flax could not find.

    >>> class CNN(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = example_by_example(nn.Conv(8, (3, 3)), x)
    ...         return nn.Dense(10)(x.reshape(len(x), -1))
    >>> CNN().init_with_output(jax.random.key(0), jax.numpy.zeros((20, 28, 28, 1)))[0].shape
    (20, 10)
    """
    method: Any = layers.__call__ if isinstance(layers, nn.Module) else layers
    if not isinstance(getattr(method, "__self__", None), nn.Module):
        raise ValueError(f"example_by_example: layers must be a flax linen module, or a method of one, got {layers}")
    if not forms.cpu():
        return layers(x)
    module, function = method.__self__, method.__func__
    split: dict[Any, bool] = {"params": False, "dropout": True}
    scanned = nn.scan(lambda module, _, x: (None, function(module, x[None])[0]), variable_broadcast="params", split_rngs=split)
    return scanned(module, None, x)[1]
