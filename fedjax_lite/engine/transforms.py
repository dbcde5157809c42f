"""Prepare functions for jax's transformations: turn closed-over arrays into arguments, and choose the form that `jax.vmap` runs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from fedjax_lite.base import Tree


def convert_closure(fn: Callable, *args: Tree) -> tuple[Callable[..., Tree], Sequence[Any]]:
    """Split `fn` into a function `call` and the arrays that `fn` closes over: `fn(*args)` is `call(closed_over, *args)`.

    `shard_map` and `custom_vmap` must get every array as an argument, a study's batched hyperparameters too.
    """
    traced, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    flat = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr.replace(constvars=(), invars=[*traced.jaxpr.constvars, *traced.jaxpr.invars]), ()))

    def call(closed_over, *args):
        return jax.tree.unflatten(jax.tree.structure(shapes), flat(*closed_over, *jax.tree.leaves(args)))

    return call, traced.consts


def when_vmapped(alone: Callable, together: Callable | None) -> Callable:
    """Return a function that calls `alone`; under `jax.vmap`, over a study's runs, it calls `together` for all runs at once.

    If `together` is None, the runs call `alone` one after another.
    """

    def run(*args):
        call_alone, closed_alone = convert_closure(alone, *args)
        call_together, closed_together = convert_closure(together, *args) if together else (None, ())

        @jax.custom_batching.custom_vmap
        def call(closed_alone, closed_together, args):
            del closed_together
            return call_alone(closed_alone, *args)

        @call.def_vmap
        def _(size, batched, *operands):
            leaves, structure = jax.tree.flatten(tuple(operands))
            moving = jax.tree.leaves(batched)

            def one(some):
                rest = iter(some)
                operands = jax.tree.unflatten(structure, [next(rest) if moves else leaf for leaf, moves in zip(leaves, moving)])
                return call_together(operands[1], *operands[2]) if call_together else call(*operands)

            runs = [leaf for leaf, moves in zip(leaves, moving) if moves]
            results = jax.vmap(one)(runs) if call_together else jax.lax.map(one, runs)
            return results, jax.tree.map(lambda _: True, results)

        return call(closed_alone, closed_together, args)

    return run
