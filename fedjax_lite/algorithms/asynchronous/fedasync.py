"""FedAsync: each upload is mixed into the global model as it arrives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.asynchronous.pieces import (
    Models,
    and_now,
    arriving_by_speed,
    asynchronous,
    of_its_age,
    remember,
    remembered,
    starting_from,
    weighed,
)
from fedjax_lite.algorithms.optimisation.pieces import proximal
from fedjax_lite.base import Aggregator, Algorithm, Info, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.engine.pace import Asynchrony
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count, a_share, plain, positive
from fedjax_lite.work import sgd_work
from fedjax_lite.work.terms import in_front


class State(NamedTuple):
    """What the server keeps."""

    params: Tree
    models: Models


def fedasync(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    alpha: Number = 0.6,
    staleness: str = "polynomial",
    a: Number | None = None,
    b: Number = 4.0,
    rho: Number = 0.005,
    window: int = 64,
    too_old: str = "refuse",
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedAsync: the server mixes each client's model into its own when it arrives, the less the older the model that it started from.

    y^0 = x^{t - tau}, g <- g_k(y) + rho (y - y^0), then `optimizer`;
    x^{t+1} = (1 - alpha_t) x^t + alpha_t y,  alpha_t = alpha s(tau).

    Clients send Delta = y - y^0, from which the server knows y: x + alpha_t (Delta + x^{t - tau} - x). One upload is one step of the
    server; the cohorts come from `fl.clock.arriving`.

    Args:
        alpha: in (0, 1]; the paper takes 0.6 and 0.9.
        staleness: s(tau): "constant" 1, "polynomial" (1 + tau)^-a, or "hinge": 1 up to tau = b, then 1 / (a (tau - b) + 1).
        a, b: of s; a is 0.5 for "polynomial" and 10 for "hinge" by default.
        rho: the strength of the proximal term; 0: none.
        window: how many of its most recent models the server keeps.
        too_old, uplink: as in `fedbuff`.
        aggregator: of the one message alpha_t Delta; `fl.aggregators.mean()` by default. It is where attacks stand; robust rules need more
            than one.
        loss_fn, optimizer, batches, population, learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for an alpha outside (0, 1], numbers below 0, an unknown staleness, a private aggregator or an uplink that hides the
            clients' data; in a round, for a cohort without ages.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([4.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedasync(
    ...     loss_fn, optax.sgd(0.5), batches=fl.Batches(None), population=2, alpha=0.5, staleness="constant", rho=0.0)
    >>> sampler = fl.sampling.scheduled([[0], [1]], ages=[[0], [1]])
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), sampler, rounds=2, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4)  # half of 2, then half of that and half of 4
    2.5

    Source: Xie, Koyejo and Gupta 2019, "Asynchronous federated optimization", algorithm 1 and section 5.2.
    """
    a_share("fedasync", "alpha", alpha, "(0, 1]")
    positive("fedasync", "rho", rho, or_zero=True)
    window = a_count("fedasync", "window", window)
    s = _staleness(staleness, a, b)
    near = optimizer if isinstance(plain(rho), int | float) and rho == 0 else in_front(proximal(rho), optimizer)
    mix = lambda age: alpha * s(age)  # noqa: E731
    algorithm = federate(
        starting_from(of_its_age, sgd_work(loss_fn, near, learning_rate=learning_rate)),
        weighed(mix, arriving_by_speed("fedasync", aggregator, mean())),
        _mixing(mix, window),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
    return asynchronous("fedasync", algorithm, Asynchrony(1, window, too_old))


def _mixing(mix: Callable[[Any], Any], window: int) -> Server:
    """Make the server x <- x + alpha_t Delta + alpha_t (x^{t - tau} - x); uploads that arrive together are averaged."""

    def update(aggregate: Tree, state: State, info: Info) -> State:
        if info.cohort is None:
            raise ValueError(
                "fedasync: the server mixes models by their age, which is hidden under an uplink that hides the clients' data: take fedbuff"
            )
        here = (info.cohort.weight > 0) & (info.clients > 0)  # an upload that is not finite pulls the model nowhere
        share = jnp.where(here, mix(info.cohort.age), 0) / jnp.maximum(jnp.sum(here), 1)
        begun = jax.vmap(lambda age: remembered(state.models, age))(info.cohort.age)
        begun = tree.zero_where_not(here, begun)

        def leaf(x: Any, change: Any, begun: Any) -> Any:
            pull = jnp.tensordot(share.astype(x.dtype), begun, 1, precision="highest") - jnp.sum(share).astype(x.dtype) * x
            return (x + (change.astype(x.dtype) + pull)).astype(x.dtype)

        params = jax.tree.map(leaf, state.params, aggregate, begun)
        return State(params, and_now(state.models, params))

    return Server(
        init=lambda params: State(params, remember(params, window)),
        broadcast=lambda state: Shared(state.params, public=state.models),
        update=update,
    )


def _staleness(name: str, a: Number | None, b: Number) -> Callable[[Any], Any]:
    """Return s(tau).

    >>> [round(float(_staleness(name, None, 4.0)(jnp.array(8))), 4) for name in ("constant", "hinge")]
    [1.0, 0.0244]
    """
    if name not in ("constant", "polynomial", "hinge"):
        raise ValueError(f'fedasync: staleness must be "constant", "polynomial" or "hinge", got {name!r}')
    a = (10.0 if name == "hinge" else 0.5) if a is None else a
    positive("fedasync", "a", a, or_zero=True)
    positive("fedasync", "b", b, or_zero=True)
    if name == "polynomial":
        return lambda age: (1.0 + age) ** -a
    if name == "hinge":
        return lambda age: 1.0 / (a * jnp.maximum(age - b, 0.0) + 1.0)
    return lambda age: jnp.ones(jnp.shape(age))
