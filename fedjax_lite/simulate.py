"""A whole run as one pure function: rounds in one scan."""

import jax

from fedjax_lite.base import Algorithm, Key, State, Tree, round_key
from fedjax_lite.data.federated import FederatedData
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
        sampler: who takes part.
        rounds: how many rounds (static).
        key: the root key. Every draw of the run is a function of it, the round and the client's id.

    Returns:
        The final state, and the history: every metric of a round as an array `[rounds]`.
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
    """Run `rounds` more rounds from a state; `simulate` in pieces gives the same bits as in one."""

    def body(state, _):
        cohort = sampler(round_key(state), data.size, state.round)
        return algorithm.round(state, data, cohort)

    return jax.lax.scan(body, state, length=rounds)
