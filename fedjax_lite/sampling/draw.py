"""Draw a round's cohort from any sampler, and hand on the memory of a sampler that keeps one."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import Algorithm, Client, Key, State, Tree, round_key
from fedjax_lite.engine.pace import Demand
from fedjax_lite.refuse import short
from fedjax_lite.sampling.participation import Remembering, Sampler, cohort

__all__ = [
    "Drawn",
    "Watched",
    "cohort_shapes",
    "demand_of_all",
    "draw",
    "drawn_by",
    "has_clock",
    "looked",
    "looks",
    "ready",
    "steps_of",
    "taking_part",
]


class Drawn(NamedTuple):
    """Who was drawn in some rounds, and for what."""

    times: Any  # int [population], for how many of the rounds each client was drawn
    steps: Any  # int [rounds, clients], local steps of each slot's client; no slots where these are not known


class Watched(NamedTuple):
    """The memory of a sampler whose cohorts nobody can draw again without training, and how often it drew each client."""

    memory: Tree
    drawn: Int[Array, " population"]


def looks(sampler: Sampler | Remembering) -> bool:
    """Return whether a sampler looks at clients' examples, so that its cohorts depend on training."""
    return isinstance(sampler, Remembering) and sampler.look is not None


def has_clock(sampler: Sampler | Remembering) -> bool:
    """Return whether a sampler's rounds have virtual seconds."""
    return getattr(sampler, "clocked", False) or hasattr(sampler, "arrivals")


def ready(sampler: Sampler | Remembering, state: State, sizes: Any) -> State:
    """Return a state with the sampler's first memory, unless it has one already.

    Raises:
        ValueError: for the memory of another sampler.
    """
    if not isinstance(sampler, Remembering):
        return state
    shapes = jax.eval_shape(lambda sizes: _first_memory(sampler, sizes), jax.ShapeDtypeStruct(sizes.shape, jnp.int32))
    if _is_nothing(state.sampling):
        return state if _is_nothing(shapes) else state._replace(sampling=_first_memory(sampler, sizes))
    if (kinds := [_kind(memory) for memory in (shapes, state.sampling)])[0] != kinds[1]:
        raise ValueError(
            f"sampling: the state has the memory of another sampler, {short(kinds[1])}, and this one remembers {short(kinds[0])}: go on "
            "with the sampler that the run began with, or take state._replace(sampling=())"
        )
    return state


def _first_memory(sampler: Remembering, sizes: Any) -> Tree:
    """Make a sampler's first memory."""
    memory = sampler.init(sizes)
    return Watched(memory, jnp.zeros(sizes.shape, jnp.int32)) if looks(sampler) else memory


def _kind(memory: Tree) -> Any:
    """Return a memory's structure and shapes."""
    return jax.tree.map(jnp.shape, memory)


def draw(sampler: Sampler | Remembering, algorithm: Algorithm, state: State, sizes: Any) -> tuple[Client, State]:
    """Draw the cohort of the round about to run; also return the state with the memory after the draw.

    Args:
        state: from `ready`; `own` and `uplink` do not matter.
        sizes: int32 `[population]`.
    """
    if not isinstance(sampler, Remembering):
        return sampler(round_key(state), sizes, state.round), state
    watched = isinstance(state.sampling, Watched)
    memory = state.sampling.memory if watched else state.sampling
    cohort, memory = sampler.sample(round_key(state), sizes, state.round, memory, partial(_demand, algorithm, state))
    return cohort, state._replace(sampling=state.sampling._replace(memory=memory) if watched else memory)


def looked(sampler: Sampler | Remembering, algorithm: Algorithm, state: State, data: Any, cohort: Client) -> tuple[Client, State]:
    """Let a sampler look at the global model and the cohort's examples; the cohort that is left of it, and the state."""
    if not isinstance(sampler, Remembering) or sampler.look is None:
        return cohort, state
    if algorithm.privacy is not None:
        raise ValueError(
            "sampling: this sampler looks at clients' losses, which tell of their examples what no noise hides: with a private aggregator "
            "take fl.sampling.poisson, uniform, cyclic or everyone"
        )
    cohort, memory = sampler.look(algorithm.params(state), data, cohort, state.sampling.memory)
    ids = taking_part(algorithm, cohort, state.round, data.population)
    return cohort, state._replace(sampling=Watched(memory, state.sampling.drawn.at[ids].add(1, mode="drop")))


def taking_part(algorithm: Algorithm, cohort: Client, round: Any, population: int) -> Int[Array, " clients"]:
    """Return the id of each slot's client, and `population` for an empty slot and for a client without examples."""
    cohort = algorithm.layout.steps(cohort, round) if algorithm.layout else cohort._replace(steps=cohort.size)
    return jnp.where((cohort.weight > 0) & (cohort.id >= 0) & (cohort.id < population), cohort.id, population)


def steps_of(algorithm: Algorithm, cohort: Client, round: Any) -> Int[Array, " clients"]:
    """Return the local steps of each slot's client, but for passes over its examples; 0 in an empty slot."""
    return algorithm.layout.steps(cohort, round).steps if algorithm.layout else jnp.zeros_like(cohort.id[:0])


def cohort_shapes(sampler: Sampler | Remembering, algorithm: Algorithm, state: State, sizes: Any) -> Client:
    """Return the shapes of a cohort before a sampler looks, from the shapes of a state and of the sizes."""
    return jax.eval_shape(lambda state, sizes: draw(sampler, algorithm, ready(sampler, state, sizes), sizes)[0], state, sizes)


def demand_of_all(algorithm: Algorithm, shapes: State, key: Key, sizes: Any) -> Demand:
    """Return what round 0 asks of every client, as NumPy arrays `[population]`, from the shapes of the first state."""

    def asked(_: Any) -> Demand:
        first = _first_state(shapes, key)
        return _demand(algorithm, first, cohort(round_key(first), jnp.asarray(sizes, jnp.int32), jnp.arange(len(sizes))))

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        found = jax.lax.map(asked, jnp.arange(1))  # one program, where the operations alone would be a hundred
    return jax.tree.map(lambda x: np.asarray(x[0]), found)


def drawn_by(sampler: Sampler | Remembering, algorithm: Algorithm, shapes: State) -> Any:
    """Return a sampler that draws the cohorts of an algorithm's run for other algorithms, which ask something else of clients.

    Args:
        shapes: of the algorithm's states.
    """
    if not isinstance(sampler, Remembering) or sampler.check is None:
        return sampler

    def sample(key: Key, sizes: Any, round: Any, memory: Tree, demand: Any) -> tuple[Client, Tree]:
        state = _first_state(shapes, jax.random.key(0))._replace(round=round)  # a client's work and bits depend on shapes and the round
        return sampler.sample(key, sizes, round, memory, partial(_demand, algorithm, state))

    return sampler._replace(sample=sample, check=None)


def _first_state(shapes: State, key: Key) -> State:
    """Make a state of zeros for round 0, without clients' rows."""
    server, aggregator = jax.tree.map(_nothing, (shapes.server, shapes.aggregator))
    return State(jnp.int32(0), key, server, aggregator, (), ())


def _nothing(shape: Any) -> Any:
    """Make zeros, or keys, of a shape."""
    return jax.random.split(jax.random.key(0), shape.shape) if tree.is_key(shape) else jnp.zeros(shape.shape, shape.dtype)


def _demand(algorithm: Algorithm, state: State, cohort: Client) -> Demand:
    """Tell what a round asks of each client of a cohort, by its algorithm."""
    if algorithm.layout is None or algorithm.layout.demand is None:
        raise ValueError("clock: this algorithm does not tell what a round asks of a client: build it with fl.federate")
    return algorithm.layout.demand(state, cohort)


def _is_nothing(memory: Tree) -> bool:
    """Return whether a memory is that of a state that no sampler has seen."""
    return isinstance(memory, tuple) and memory == ()
