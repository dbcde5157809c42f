"""A segment: rounds in one program and the evaluation after them, of a population in memory; or streamed; or a whole run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.base import Algorithm, Key, State, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.evaluation import evaluate, evaluate_algorithm, evaluate_models
from fedjax_lite.models.loss_fn import of_one_model
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.host_rows import untouched
from fedjax_lite.runner.stream import streamed
from fedjax_lite.sampling.draw import draw, ready
from fedjax_lite.sampling.participation import Sampler
from fedjax_lite.simulate import advance_counting, simulate

__all__ = ["counts", "first_rows", "in_memory", "start_segments", "whole"]


def start_segments(
    algorithm: Algorithm, data: FederatedData | Store, params: Tree, key: Key, on_host: bool, sampler: Sampler
) -> tuple[State, Callable[..., Any]]:
    """The first state, and a function that runs a segment of rounds from a state."""
    sizes = everywhere(jnp.asarray(data.size))
    if not on_host or algorithm.layout is None or algorithm.layout.rows is None:
        state = ready(sampler, jax.jit(algorithm.init)(params, key), sizes)
        return state, streamed(data) if isinstance(data, Store) else partial(in_memory, data=data)

    def without_rows(params, key):
        return algorithm.init(params, key)._replace(own=(), uplink=())

    first = first_rows(algorithm, params)
    shapes = jax.eval_shape(algorithm.init, params, key)
    state = ready(sampler, jax.jit(without_rows)(params, key), sizes)._replace(own=untouched(shapes.own), uplink=untouched(shapes.uplink))
    return state, streamed(data, first)


def first_rows(algorithm: Algorithm, params: Tree) -> Callable[[Key, Any], tuple[Tree, Tree]]:
    """Return the compiled function key, ids -> own, uplink: the rows that clients start with."""
    assert algorithm.layout is not None and algorithm.layout.rows is not None
    return partial(jax.jit(algorithm.layout.rows), params)


@partial(Compiled, parts=3, static_argnames="rounds", donate_argnames="state")
def in_memory(algorithm, sampler, loss_fn, rounds, state, *, data, held_out):
    """Rounds and the evaluation after them in one program, compiled once for an algorithm.

    Where clients have models of their own and hold examples out, each model is evaluated on its client's, too. Also returns who was
    drawn.
    """
    state, history, drawn = advance_counting(algorithm, data, state, sampler, rounds=rounds)
    sums = evaluate_algorithm(algorithm, loss_fn, state, data, held_out) if loss_fn else {}
    return state, history, sums, drawn


@partial(Compiled, parts=2, static_argnames="rounds")
def counts(algorithm, sampler, rounds, params, key, sizes):
    """Draw the cohorts of the next rounds; the steps that they take, those of the client with the most, and what the sampler counts."""

    def one(state, _):
        cohort, after = draw(sampler, algorithm, state, sizes)
        steps = (algorithm.layout.steps(cohort, state.round) if algorithm.layout else cohort).steps
        counted = {name: jnp.sum(each) for name, each in cohort.sums.items()}
        return after._replace(round=state.round + 1), counted | {"steps": jnp.sum(steps), "longest": jnp.max(steps)}

    first = ready(sampler, algorithm.init(params, key)._replace(own=(), uplink=()), sizes)
    return jax.lax.scan(one, first, length=rounds)[1]


@partial(Compiled, parts=3, static_argnames="rounds")
def whole(algorithm, sampler, loss_fn, rounds, params, key, *, data, held_out):
    """All rounds of a run and the evaluation after them in one program; where clients have models of their own, of each."""
    state, _ = simulate(algorithm, data, params, sampler, rounds=rounds, key=key)
    if algorithm.models is None:
        return evaluate(loss_fn, algorithm.params(state), held_out)
    return evaluate_models(of_one_model(loss_fn), partial(algorithm.models, state), data, held_out)
