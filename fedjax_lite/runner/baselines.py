"""Baselines of a run: other algorithms on the same data, by the same cohorts and for as many rounds, evaluated by the same loss."""

from collections.abc import Mapping
from typing import Any

import jax

from fedjax_lite.base import Algorithm, State
from fedjax_lite.data.store import Store
from fedjax_lite.evaluation import summarize
from fedjax_lite.guarantees import hidden
from fedjax_lite.metrics import OWN, prefix_of
from fedjax_lite.models.loss_fn import of_one_model
from fedjax_lite.runner.fit import Setup, fit_to_devices, trace
from fedjax_lite.runner.progress import say
from fedjax_lite.runner.records import plain
from fedjax_lite.runner.segments import whole
from fedjax_lite.sampling.draw import drawn_by

__all__ = ["Baselines", "check_baselines", "train_baselines"]

Baselines = Mapping[str, Any]  # name -> Algorithm; what is none is refused by name


def check_baselines(setup: Setup, shapes: State, baselines: Baselines | None) -> None:
    """Refuse baselines that cannot be trained beside a run, or whose numbers its guarantee would not cover.

    Raises:
        TypeError, ValueError: naming the baseline.
    """
    for name, baseline in (baselines or {}).items():
        if not isinstance(baseline, Algorithm):
            raise TypeError(f"baselines: {name} must be a fl.Algorithm, such as fl.baselines.centralised(...), got {baseline!r}")
        if setup.algorithm.privacy is not None or hidden(shapes.own, shapes.uplink):
            raise ValueError(
                f"baselines: {name} would be trained on the clients' data without noise, and its numbers stand beside those of a guarantee "
                "that does not cover them: leave it out, and run it in a folder of its own"
            )
        if setup.loss_fn is None:
            raise ValueError(f"baselines: {name} is evaluated by loss_fn, and there is none: give loss_fn")
        if isinstance(setup.data, Store):
            raise ValueError(f"baselines: {name} needs the data in memory, and these are streamed: take store.in_memory(), or leave it out")
        beside = setup._replace(algorithm=baseline, sampler=drawn_by(setup.sampler, setup.algorithm, shapes))
        fit_to_devices(beside, False)
        trace(beside._replace(loss_fn=of_one_model(setup.loss_fn)), {})


def train_baselines(setup: Setup, baselines: Baselines | None, rounds: int) -> dict[str, dict[str, Any]]:
    """Train each baseline for `rounds` rounds from the run's start, and return its evaluation by its name."""
    found = {}
    sampler = drawn_by(setup.sampler, setup.algorithm, jax.eval_shape(setup.algorithm.init, setup.params, setup.key))
    for name, baseline in (baselines or {}).items() if rounds else ():
        say(f"training the baseline {name} ...")
        loss_fn, whose = of_one_model(setup.loss_fn), "" if baseline.models is None else OWN
        sums = whole(baseline, sampler, loss_fn, rounds, setup.params, setup.key, data=setup.data, held_out=setup.held_out)
        found[name] = plain(summarize({whose + metric: sum for metric, sum in jax.device_get(sums).items()}, prefix_of(setup.test)))
    return found
