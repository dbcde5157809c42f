"""A whole run as one pure function: rounds in one scan."""

import jax
import jax.numpy as jnp

from fedjax_lite.base import Algorithm, Key, State, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.sampling.draw import Drawn, draw, looked, ready, steps_of, taking_part
from fedjax_lite.sampling.participation import Sampler

__all__ = ["advance", "simulate"]


def simulate(
    algorithm: Algorithm, data: FederatedData, params: Tree, sampler: Sampler, *, rounds: int, key: Key
) -> tuple[State, dict[str, jax.Array]]:
    """Run rounds from the start; pure, so `jit`, `vmap` and `grad` apply to whole experiments.

    Args:
        algorithm: what a round does. To take `grad`, build it with `engine=fl.padded()`: only that loop has a fixed length.
        data: the training population. Hand it to your jitted function as an argument: closed over, it would be compiled in.
        params: the global model at the start.
        sampler: chooses the cohort of each round.
        rounds: the number of rounds (static).
        key: the root key. Every draw of the run is a function of this key, the round and the client's id.

    Returns:
        The final state, and the history: every metric of a round as an array `[rounds]`.

    >>> import fedjax_lite as fl, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedsgd(loss_fn, learning_rate=0.5, population=2)
    >>> state, history = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 4), history["clients"].tolist()
    (3.0, [2.0, 2.0])
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if not isinstance(data, FederatedData):
        raise TypeError(
            f"data must be a FederatedData, got a {type(data).__name__}: of a TrainTest, pass data.train; a Store is for fl.run"
        )
    return advance(algorithm, data, algorithm.init(params, key), sampler, rounds=rounds)


def advance(
    algorithm: Algorithm, data: FederatedData, state: State, sampler: Sampler, *, rounds: int
) -> tuple[State, dict[str, jax.Array]]:
    """Run `rounds` more rounds from a state; `simulate` in pieces gives the same bits as in one.

    The first call adds the memory of a sampler that keeps one (`fl.clock.timed`, `fl.sampling.oort`) to the state: before a `scan` of your
    own over `advance`, advance one round.

    >>> import fedjax_lite as fl, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm, sampler = fl.algorithms.fedsgd(loss_fn, learning_rate=0.5, population=2), fl.sampling.everyone()
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), sampler, rounds=1, key=jax.random.key(0))
    >>> state, _ = fl.advance(algorithm, data, state, sampler, rounds=1)
    >>> int(state.round), round(float(algorithm.params(state)), 4)
    (2, 3.0)
    """

    return advance_counting(algorithm, data, state, sampler, rounds=rounds)[:2]


def advance_counting(
    algorithm: Algorithm, data: FederatedData, state: State, sampler: Sampler, *, rounds: int
) -> tuple[State, dict[str, jax.Array], Drawn]:
    """Advance, and also return who was drawn."""

    def body(carry, _):
        state, drawn = carry
        cohort, state = draw(sampler, algorithm, state, data.size)
        cohort, state = looked(sampler, algorithm, state, data, cohort)
        drawn = drawn.at[taking_part(algorithm, cohort, state.round, data.population)].add(1, mode="drop")
        steps = steps_of(algorithm, cohort, state.round)
        after, metrics = algorithm.round(state, data, cohort)
        return (after._replace(sampling=state.sampling), drawn), (metrics, steps)

    state = ready(sampler, state, data.size)  # which a runner has done before, since it is one more form of the state
    (state, drawn), (history, steps) = jax.lax.scan(body, (state, jnp.zeros(data.population, jnp.int32)), length=rounds)
    return state, history, Drawn(drawn, steps)
