"""Clients whose inputs differ: noise that grows from client to client, images turned by each client's angle."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.deal import generator
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import finite, positive

__all__ = ["feature_noise", "rotated"]


def feature_noise(inner: Any, sigma: Number, *, seed: Whole = 0) -> TrainTest:
    """Add Gaussian noise to every client's inputs, each client's stronger than the one's before.

    x <- x + e,  e ~ N(0, (sigma k / N)^2) for client k = 1 ... N.

    Args:
        inner: a population, or a TrainTest. Client k's test examples get noise of the same strength; a central test set stays clean.
        sigma: standard deviation of the last client's noise, in units of x, at least 0.
        seed: `default_rng(seed)` draws the noise of the training examples, then that of the test examples.

    Returns:
        TrainTest with another leaf "x", of the same dtype.

    Raises:
        ValueError: for inputs that are not floats in memory.

    >>> data = FederatedData.from_clients([{"x": np.zeros((500, 4), np.float32)}] * 2)
    >>> [round(float(feature_noise(data, 0.5).train.client(k)["x"].std()), 2) for k in (0, 1)]
    [0.25, 0.5]

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study", section 4 (feature distribution skew). The
    paper calls sigma k / N a variance; its code takes it as the standard deviation, as here, but with (k - 1) / (N - 1) for k / N.
    """
    positive("feature_noise", "sigma", sigma, or_zero=True)
    rng = generator(seed)

    def noisy(x: np.ndarray, client: np.ndarray, clients: int) -> np.ndarray:
        if not np.issubdtype(x.dtype, np.floating):
            raise ValueError(f"feature_noise: the leaf x of inner holds {x.dtype}, and noise is for floats: convert it")
        strength = np.asarray(sigma * (client + 1) / clients, x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return x + strength * rng.standard_normal(x.shape).astype(x.dtype)

    return _inputs_changed("feature_noise", inner, noisy)


def rotated(inner: Any, angles: Sequence[float | int]) -> TrainTest:
    """Turn every client's images by the client's angle.

    Client k turns by angles[k mod len(angles)], counterclockwise. Multiples of 90 degrees move pixels of square images exactly; other
    angles interpolate bilinearly, with 0 outside the image.

    Args:
        inner: a population, or a TrainTest. Client k's test examples are turned alike; a central test set is not turned.
        angles: degrees, in turn for clients 0, 1 ...; [0, 90, 180, 270] makes four clusters of clients.

    Returns:
        TrainTest with another leaf "x", of the same shape and dtype: images `[height, width]`, `[height, width, channels]`, or
        `[pixels]`, which are a square's rows.

    Raises:
        ValueError: for inputs that are no images in memory.

    >>> data = FederatedData.from_clients([{"x": np.array([[[1.0, 2.0], [3.0, 4.0]]])}] * 2)
    >>> rotated(data, [0, 90]).train.examples["x"].tolist()
    [[[1.0, 2.0], [3.0, 4.0]], [[2.0, 4.0], [1.0, 3.0]]]

    Source: Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning" (IFCA), section 6 (rotated MNIST).
    """
    if not len(angles):
        raise ValueError("rotated: angles is empty: give one angle a cluster of clients")
    for angle in angles:
        finite("rotated", "angles", angle)

    def turned(x: np.ndarray, client: np.ndarray, clients: int) -> np.ndarray:
        side = int(np.sqrt(x[0].size))
        if x.ndim not in (2, 3, 4) or x.ndim == 2 and side**2 != x.shape[1]:
            raise ValueError(f"rotated: the leaf x of inner has the shape {list(x.shape[1:])} an example, which is no image: give its axes")
        images = x.reshape(len(x), side, side) if x.ndim == 2 else x
        which = client % len(angles)
        made = images.copy()
        for place in np.unique(which):
            made[which == place] = _turn(images[which == place], angles[place])
        return made.reshape(x.shape)

    return _inputs_changed("rotated", inner, turned)


def _turn(images, angle) -> np.ndarray:
    """Turn images `[examples, height, width, ...]` counterclockwise by degrees."""
    if angle % 90 == 0 and images.shape[1] == images.shape[2]:
        return np.rot90(images, int(angle // 90), axes=(1, 2))
    return ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1, mode="grid-constant")


def _inputs_changed(function: str, data: Any, change_fn: Callable) -> TrainTest:
    """Change the leaf "x" of each part whose clients are the training clients, by `change_fn(x, the client of each row, clients)`."""
    parts = data if isinstance(data, TrainTest) else TrainTest(data, None)
    clients = parts.population if isinstance(parts.train, FederatedData) else 0
    if not clients or not isinstance(parts.train.examples, dict) or "x" not in parts.train.examples:
        raise ValueError(f'{function}: inner must be data in memory whose examples have a leaf "x", got a {type(parts.train).__name__}')

    def changed(part: FederatedData | None) -> FederatedData | None:
        if part is None or part.population != clients:
            return part
        x = np.asarray(part.examples["x"])
        client = np.repeat(np.arange(clients), np.asarray(part.size))
        return replace(part, examples=part.examples | {"x": jnp.asarray(change_fn(x[: len(client)], client, clients))})

    return TrainTest(*map(changed, parts))
