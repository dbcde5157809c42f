"""Draw a round's cohort from any sampler, and hand on the memory of a sampler that keeps one."""

from functools import partial
from typing import Any

from fedjax_lite.base import Algorithm, Client, Demand, State, Tree, round_key
from fedjax_lite.sampling.participation import Remembering, Sampler

__all__ = ["draw", "looked", "ready"]


def ready(sampler: Sampler | Remembering, state: State, sizes: Any) -> State:
    """Return a state with the sampler's first memory, unless it has one already."""
    if not isinstance(sampler, Remembering) or not _is_nothing(state.sampling):
        return state
    return state._replace(sampling=sampler.init(sizes))


def draw(sampler: Sampler | Remembering, algorithm: Algorithm, state: State, sizes: Any) -> tuple[Client, State]:
    """Draw the cohort of the round about to run; also return the state with the memory after the draw.

    Args:
        state: from `ready`; `own` and `uplink` do not matter.
        sizes: int32 `[population]`.
    """
    if not isinstance(sampler, Remembering):
        return sampler(round_key(state), sizes, state.round), state
    cohort, memory = sampler.sample(round_key(state), sizes, state.round, state.sampling, partial(_demand, algorithm, state))
    return cohort, state._replace(sampling=memory)


def looked(sampler: Sampler | Remembering, algorithm: Algorithm, state: State, data: Any, cohort: Client) -> tuple[Client, State]:
    """Let a sampler look at the global model and the cohort's examples; the cohort that is left of it, and the state."""
    if not isinstance(sampler, Remembering) or sampler.look is None:
        return cohort, state
    cohort, memory = sampler.look(algorithm.params(state), data, cohort, state.sampling)
    return cohort, state._replace(sampling=memory)


def _demand(algorithm: Algorithm, state: State, cohort: Client) -> Demand:
    """Tell what a round asks of each client of a cohort, by its algorithm."""
    if algorithm.layout is None or algorithm.layout.demand is None:
        raise ValueError("clock: this algorithm does not tell what a round asks of a client: build it with fl.federate")
    return algorithm.layout.demand(state, cohort)


def _is_nothing(memory: Tree) -> bool:
    """Return whether a memory is that of a state that no sampler has seen."""
    return isinstance(memory, tuple) and memory == ()
