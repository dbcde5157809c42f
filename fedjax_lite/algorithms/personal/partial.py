"""FedPer, FedRep, LG-FedAvg, FedBABU and FedBN: FedAvg in which some leaves of the model stay, or learn in turns, or not at all."""

from typing import Any

import optax

from fedjax_lite.aggregators import mean, weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.leaves import Rule, besides
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count
from fedjax_lite.work import keep_leaves, sgd_work, train_leaves


def fedper(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    personal: Rule,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedPer: FedAvg of the body, while the head of the model stays with each client; both train together.

    (b_k, h_k) <- K steps from (b, h_k);  b <- b + eta_g sum_k p_k (b_k - b).

    Args:
        personal: which leaves stay: a regular expression for their paths ("Dense_2/.*"), a function `(path, leaf) -> bool`, or a name
            (`fl.leaves.last_layer(model, example)` is the first, whatever the layer is called).
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the clients' models; its `params(state)` has the first head, a new client's.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"t": jnp.array([1.0])}, {"t": jnp.array([2.0])}])
    >>> loss_fn = lambda params, batch, key: (params["body"] * params["head"] - batch["t"]) ** 2 / 2
    >>> algorithm = fedper(loss_fn, optax.sgd(0.1), batches=fl.Batches(None, steps=50), population=2, personal="head")
    >>> begin = {"body": jnp.ones(()), "head": jnp.ones(())}
    >>> state, _ = fl.simulate(algorithm, data, begin, fl.sampling.everyone(), rounds=10, key=jax.random.key(0))
    >>> models = algorithm.models(state)
    >>> (models["body"] * models["head"]).round(3).tolist()  # every client's own target
    [1.0, 2.0]

    Source: Arivazhagan et al. 2019, "Federated learning with personalization layers", algorithms 1 and 2.
    """
    return _partly(
        "fedper", loss_fn, optimizer, personal, aggregator=weighted_mean() if aggregator is None else aggregator, batches=batches,
        population=population, learning_rate=learning_rate, uplink=uplink, server_learning_rate=server_learning_rate, engine=engine,
    )  # fmt: skip


def lg_fedavg(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    personal: Rule,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""LG-FedAvg: the body stays with each client, the head is averaged; both train together.

    (b_k, h_k) <- K steps from (b_k, h);  h <- h + eta_g mean_S (h_k - h).

    Args:
        personal: which leaves stay, here those of the body: as in `fedper`.
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the clients' models; its `params(state)` has the first body. The authors start from a
        model that FedAvg has trained.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> loss_fn = lambda params, batch, key: (params["body"] * params["head"] - batch["t"]) ** 2 / 2
    >>> algorithm = lg_fedavg(loss_fn, optax.sgd(0.1), batches=fl.Batches(None, steps=50), population=2, personal="body")
    >>> algorithm.init({"body": jnp.ones(()), "head": jnp.ones(())}, jax.random.key(0)).own.leaves
    {'body': Array([1., 1.], dtype=float32), 'head': None}

    Source: Liang et al. 2020, "Think locally, act globally: federated learning with local and global representations", algorithm 1.
    """
    return _partly(
        "lg_fedavg", loss_fn, optimizer, personal, aggregator=mean() if aggregator is None else aggregator, batches=batches,
        population=population, learning_rate=learning_rate, uplink=uplink, server_learning_rate=server_learning_rate, engine=engine,
    )  # fmt: skip


def fedbn(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    personal: Rule = "norm layers",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedBN: FedAvg, while what normalises stays with each client: scale, bias and running statistics.

    (w_k, n_k) <- K steps from (w, n_k);  w <- w + eta_g mean_S (w_k - w).

    Args:
        personal: which leaves stay, as in `fedper`. "norm layers" are those of layers with norm, or bn and a number, in their names;
            "statistics/.*" are the running statistics alone (SiloBN, Andreux et al. 2020).
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the clients' models; its `params(state)` has the first layers, a new client's.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.full((2, 1), k), "y": jnp.zeros(2, int)} for k in (1.0, 5.0)])
    >>> model = fl.models.mlp((3,), classes=2, norm="batch")
    >>> algorithm = fedbn(fl.models.supervised(model), optax.sgd(0.1), batches=fl.Batches(None), population=2)
    >>> params = model.init(jax.random.key(0), data.example)
    >>> state, _ = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> jax.tree.map(jnp.shape, algorithm.models(state).statistics)  # of both clients
    {'BatchNorm_0': {'mean': (2, 3), 'var': (2, 3)}}

    Source: Li et al. 2021, "FedBN: federated learning on non-IID features via local batch normalization", algorithm 1.
    """
    return _partly(
        "fedbn", loss_fn, optimizer, personal, aggregator=mean() if aggregator is None else aggregator, batches=batches,
        population=population, learning_rate=learning_rate, uplink=uplink, server_learning_rate=server_learning_rate, engine=engine,
    )  # fmt: skip


def fedrep(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    personal: Rule,
    head_epochs: int,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedRep: each client first trains its own head on the body as received, then the body below that head.

    h_k <- head_epochs of steps at (b, .);  b_k <- the other epochs of steps at (., h_k);  b <- b + eta_g sum_k p_k (b_k - b).

    Args:
        personal: which leaves stay, those of the head: as in `fedper`.
        head_epochs: local epochs in which the head learns; the body learns in those of `batches` that are left: `fl.Batches(10, epochs=11)`
            and 10 are the paper's.
        loss_fn, optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the clients' models; its `params(state)` has the first head, a new client's.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"t": jnp.array([1.0])}, {"t": jnp.array([2.0])}])
    >>> loss_fn = lambda params, batch, key: (params["body"] * params["head"] - batch["t"]) ** 2 / 2
    >>> algorithm = fedrep(loss_fn, optax.sgd(0.5), batches=fl.Batches(None, epochs=31), population=2, personal="head", head_epochs=30)
    >>> begin = {"body": jnp.ones(()), "head": jnp.zeros(())}
    >>> state, _ = fl.simulate(algorithm, data, begin, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> state.own.leaves["head"].round(3).tolist()  # solved for the body 1, which then has nothing to learn
    [1.0, 2.0]

    Source: Collins et al. 2021, "Exploiting shared representations for personalized federated learning", algorithm 1.
    """
    head_epochs = a_count("fedrep", "head_epochs", head_epochs)
    if isinstance(batches.epochs, int | float) and batches.steps is None and batches.epochs <= head_epochs:
        raise ValueError(
            f"fedrep: head_epochs={head_epochs} leaves the body nothing of the {batches.epochs} local epochs: give batches of more epochs"
        )
    turns = [(personal, head_epochs), (besides(personal), None)]
    return _partly(
        "fedrep", loss_fn, train_leaves(optimizer, turns), personal, aggregator=weighted_mean() if aggregator is None else aggregator,
        batches=batches, population=population, learning_rate=learning_rate, uplink=uplink, server_learning_rate=server_learning_rate,
        engine=engine,
    )  # fmt: skip


def fedbabu(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    fixed: Rule,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedBABU: the body is trained by FedAvg under the first model's head, which nobody learns before the model is fine-tuned.

    b_k <- K steps from b at (., h^0);  b <- b + eta_g mean_S (b_k - b).

    Args:
        fixed: which leaves nobody learns, those of the head: as `personal` in `fedper`. They are not sent either.
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    >>> import fedjax_lite as fl, jax, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"t": jnp.array([1.0])}, {"t": jnp.array([2.0])}])
    >>> loss_fn = lambda params, batch, key: (params["body"] * params["head"] - batch["t"]) ** 2 / 2
    >>> algorithm = fedbabu(loss_fn, optax.sgd(0.1), batches=fl.Batches(None, steps=50), population=2, fixed="head")
    >>> begin = {"body": jnp.ones(()), "head": jnp.ones(())}
    >>> state, _ = fl.simulate(algorithm, data, begin, fl.sampling.everyone(), rounds=10, key=jax.random.key(0))
    >>> jax.tree.map(lambda x: round(float(x), 3), algorithm.params(state))
    {'body': 1.5, 'head': 1.0}

    Source: Oh, Kim, Yun 2022, "FedBABU: toward enhanced representation for federated image classification", algorithm 1.
    """
    built = _partly(
        "fedbabu", loss_fn, train_leaves(optimizer, [(besides(fixed), None)]), "none", fixed=fixed,
        aggregator=mean() if aggregator is None else aggregator, batches=batches, population=population, learning_rate=learning_rate,
        uplink=uplink, server_learning_rate=server_learning_rate, engine=engine,
    )  # fmt: skip
    return built._replace(models=None)  # clients keep nothing


def _partly(
    name: str, loss_fn: LossFn, optimizer: Any, personal: Rule, *, learning_rate: Any, server_learning_rate: Any, fixed: Rule = "none",
    aggregator: Aggregator, **parts: Any,
) -> Algorithm:  # fmt: skip
    """Make FedAvg of which only some leaves travel."""
    kept = keep_leaves(sgd_work(loss_fn, optimizer, learning_rate=learning_rate), averaging(name, server_learning_rate), personal, fixed)
    return federate(kept.work, aggregator, kept.server, **parts)._replace(models=kept.models)
