"""The synthetic(alpha, beta) problem: clients differ in their model, in their inputs and, heavily, in size."""

import math

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.deal import check_fraction, generator
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import a_count

_FEATURES, _CLASSES = 60, 10


def synthetic(
    alpha: float | int = 1.0, beta: float | int = 1.0, *, clients: Whole = 30, seed: Whole = 0, iid: bool = False, test: Number = 0.1
) -> TrainTest:
    """Linear classification with 60 features and 10 classes, in which each client k has its own model and inputs.

    n_k = int(LogNormal(4, 2)) + 50,  u_k ~ N(0, alpha),  B_k ~ N(0, beta),
    v_k[j] ~ N(B_k, 1),  W_k[j, c] ~ N(u_k, 1),  b_k[c] ~ N(u_k, 1),
    x ~ N(v_k, diag(j^-1.2)), j = 1..60,  y = argmax(x W_k + b_k).

    alpha and beta are standard deviations, as in the authors' code (the paper writes them as N(0, alpha)). Sizes have a
    heavy tail: a population of 30 may hold 4 or 50 thousand examples, most of them at one client.

    Args:
        alpha: meant to set how much models differ; but u_k adds the same to the score of every class, so y does not
            depend on alpha, and synthetic(0, 1) is synthetic(1, 1). Clients' models differ by the N(., 1) all the same.
        beta: how much inputs differ.
        clients: number of clients, at least 1.
        seed: of `default_rng`, which draws n, u, B, then for each client v, W, b, x and a permutation.
        iid: all clients share one W, b ~ N(0, 1), and v = 0; alpha and beta are not used. `default_rng` then draws n, W, b,
            and for each client x and a permutation.
        test: in permuted order the first int((1 - test) * n_k) examples train, the rest are held out.

    Returns:
        TrainTest with the same clients in both parts (`test` is None if test=0). Examples: "x" float32 `[60]`, "y" int32.

    Raises:
        ValueError: negative alpha or beta, no clients, test outside [0, 1).

    >>> synthetic(1.0, 1.0, seed=0).train.size.tolist()[:4]
    [108, 81, 221, 105]

    Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (FedProx), section 5.1.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is a standard deviation: it must be a finite number of at least 0, got {value!r}")
    clients = a_count("synthetic", "clients", clients)
    check_fraction(test)

    rng = generator(seed)
    sizes = rng.lognormal(4, 2, clients).astype(int) + 50
    if iid:
        shared = _model(rng, 0)
    else:
        u, means = rng.normal(0, alpha, clients), rng.normal(0, beta, clients)
    scale = np.arange(1, _FEATURES + 1) ** -0.6  # standard deviations of diag(j^-1.2)
    train, held = [], []
    for k, n in enumerate(sizes):
        center = 0 if iid else rng.normal(means[k], 1, _FEATURES)
        weights, bias = shared if iid else _model(rng, u[k])
        x = rng.normal(center, scale, (n, _FEATURES))
        y = np.argmax(x @ weights + bias, axis=1)
        order = rng.permutation(n)
        examples = {"x": x[order].astype(np.float32), "y": y[order].astype(np.int32)}
        kept = int((1 - test) * n)
        train.append({name: array[:kept] for name, array in examples.items()})
        held.append({name: array[kept:] for name, array in examples.items()})
    return TrainTest(
        FederatedData.from_clients(train, classes=_CLASSES),
        FederatedData.from_clients(held, classes=_CLASSES) if test else None,
    )


def _model(rng, mean):
    """Draw weights `[60, 10]` and biases `[10]` from N(mean, 1)."""
    return rng.normal(mean, 1, (_FEATURES, _CLASSES)), rng.normal(mean, 1, _CLASSES)
