"""Rounds in which the cohort answers twice: one algorithm after another over one server."""

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Algorithm, Client, Key, Layout, State, Tree
from fedjax_lite.engine.pace import Demand

BITS = ("uplink_bits", "uplink_side_bits", "downlink_bits")  # metrics that are summed over both parts


def in_turn(first: Algorithm, then: Algorithm) -> Algorithm:
    """One round of `first`, then one of `then` with the same cohort, as a single round over one server.

    For methods that ask before they train: the mean gradient at the model (Mime, SVRG), a vote, statistics. `first`'s server writes the
    answer into the state that both servers share, and `then`'s sends it on, as `Shared.extra`.

    Args:
        first, then: from `fl.federate`, for one population; their servers' `init` must give the same state.

    Returns:
        An `Algorithm` whose metrics are `then`'s, the metrics that only `first` has, and the bits of both; its state's aggregator, own and
        uplink are pairs. In both parts a client draws from the same key.

    Raises:
        ValueError: for servers of different states, or a private part: no accountant covers two releases in one round.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> once = fl.algorithms.fedsgd(loss_fn, learning_rate=0.5, population=2)
    >>> twice = fl.in_turn(once, once)
    >>> state, history = fl.simulate(twice, data, jnp.zeros(()), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    >>> round(float(twice.params(state)), 4), history["uplink_bits"].tolist()
    (3.0, [128.0])

    Source: the two exchanges of a round in Karimireddy et al. 2021, "Breaking the centralized barrier for cross-device federated learning"
    (Mime), algorithm 1.
    """
    for name, algorithm in (("first", first), ("then", then)):
        if not isinstance(algorithm, Algorithm):
            raise TypeError(f"in_turn: {name} must be a fl.Algorithm, got {algorithm!r}: call fl.federate")
        if algorithm.privacy is not None:
            raise ValueError(f"in_turn: {name} is private, and nothing accounts for two releases in one round: take parts that are not")

    def part(state: State, i: int) -> State:
        return state._replace(aggregator=state.aggregator[i], own=state.own[i], uplink=state.uplink[i])

    def joined(a: State, b: State) -> State:
        return b._replace(aggregator=(a.aggregator, b.aggregator), own=(a.own, b.own), uplink=(a.uplink, b.uplink))

    def init(params: Tree, key: Key) -> State:
        a, b = first.init(params, key), then.init(params, key)
        kinds = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), state.server) for state in (a, b)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"in_turn: both servers must have one state, first has {kinds[0]}, then {kinds[1]}")
        return joined(a, b)

    def round(state: State, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
        a, asked = first.round(part(state, 0), data, cohort)
        b, metrics = then.round(part(state, 1)._replace(server=a.server), data, cohort)
        return joined(a, b), asked | metrics | {name: asked[name] + metrics[name] for name in BITS}

    return Algorithm(init, round, then.params, _layout(first.layout, then.layout, part), models=then.models)


def _layout(first: Layout | None, then: Layout | None, part: Any) -> Layout | None:
    """Join the layouts: the steps of `then`, the rows and stacks of both parts as pairs, and what both ask of clients."""
    if first is None or then is None:
        return None

    def rows(params, key, ids):
        return tuple(zip(*(fn(params, key, ids) for fn in (first.rows, then.rows) if fn), strict=True))

    def stacks(state, data, cohort):
        each = [layout.stacks(part(state, i), data, cohort) for i, layout in enumerate((first, then))]
        return {name: tuple(one[name] for one in each) for name in each[1]}

    return Layout(then.steps, rows if first.rows and then.rows else None, stacks, _demand(first.demand, then.demand))


def _demand(first: Any, then: Any) -> Any:
    """Join what both parts ask of clients; None where one does not tell."""
    if first is None or then is None:
        return None

    def demand(state: State, cohort: Client) -> Demand:
        a, b = [part(state._replace(aggregator=state.aggregator[i]), cohort) for i, part in enumerate((first, then))]
        # Who has little time is cut in `then`: of `first` it is taken to make all steps.
        return Demand(a.steps + b.steps, a.received + b.received, a.sent + b.sent, a.steps + b.passes)

    return demand
