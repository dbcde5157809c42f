"""Where a run's time went, by a clock that the test moves; how busy lanes were, by lanes that are stepped one step at a time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.engine.devices import assign
from fedjax_lite.runner import timing
from fedjax_lite.runner.occupancy import MOST, Occupancy
from fedjax_lite.runner.timing import COMPILING, Stopwatch


def ticks_of(steps, lanes):
    """Steps until a queue is dry: the longest client first, one tick after another."""
    queue, busy, ticks = sorted((step for step in steps if step), reverse=True), [], 0
    while queue or busy:
        busy += [queue.pop(0) for _ in range(min(lanes - len(busy), len(queue)))]
        busy, ticks = [left - 1 for left in busy if left > 1], ticks + 1
    return ticks


@pytest.mark.parametrize("lanes, devices", [(1, 1), (3, 1), (100, 1), (1, 2), (2, 3)])
def test_lanes_make_as_many_steps_as_the_engines_queue(lanes, devices):
    steps = np.random.default_rng(lanes).integers(0, 30, (7, 11)) * np.array([0, 1, 1, 1, 1, 1, 1])[:, None]
    told = Occupancy(lanes, devices)
    told.add(steps[:3])
    told.add(steps[3:])
    made = 0
    for each in steps:
        where = np.asarray(assign(jnp.asarray(each), devices))
        made += devices * lanes * max(ticks_of(each[where == device].tolist(), lanes) for device in range(devices))
    expected = {"share": steps.sum() / made, "needed": steps.sum(), "made": made, "rounds": 7, "lanes": lanes, "devices": devices}
    assert told.summary() == expected


def test_without_a_step_or_lanes_nothing_is_told():
    for lanes, steps in ((2, np.zeros((3, 4), int)), (0, np.ones((3, 4), int)), (2, np.zeros((3, 0), int))):
        told = Occupancy(lanes, 1)
        told.add(steps)
        assert told.summary() == {}


def test_of_very_many_clients_the_first_rounds_are_laid_out():
    told = Occupancy(10, 1)
    told.add(np.ones((8, MOST // 2), int))
    assert told.summary()["rounds"] == 3


def test_compilation_is_apart_and_counted_once(monkeypatch):
    now = iter([9.0, 10.0, 13.0, 20.0])
    monkeypatch.setattr(timing.time, "time", lambda: next(now))
    tell = jax.monitoring.record_event_time_span
    with Stopwatch(Occupancy(0, 1), before=1.0) as watch:
        tell(f"{COMPILING}one", 10.5, 12.0)
        tell(f"{COMPILING}another", 11.0, 12.5)  # inside of which the first one goes on
        tell("/jax/something/else", 10.0, 13.0)
        watch.rounds(np.zeros((5, 0)))
        watch.lap("end")
    tell(f"{COMPILING}later", 0.0, 100.0)  # nobody listens
    assert watch.seconds == {"compile": 2.0, "start": 2.0, "rounds": 1.0, "end": 7.0}
    assert watch.summary() == {"seconds": watch.seconds, "rounds": 5, "lanes": {}}


def run(tmp_path, sampler=None, **more):
    data = fl.FederatedData.from_clients([{"x": jnp.arange(float(n))} for n in (4, 2, 2)])
    loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2  # noqa: E731
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=fl.Batches(1, epochs=1), population=3, **more)
    sampler = sampler or fl.sampling.everyone()
    fl.run(algorithm, data, jnp.zeros(()), sampler, rounds=4, key=jax.random.key(0), loss_fn=loss_fn, evaluate_every=2, out=tmp_path / "r")
    return json.loads((tmp_path / "r" / "summary.json").read_text())["time"], (tmp_path / "r" / "report.html").read_text()


def test_a_run_tells_its_time_and_the_use_of_its_lanes(tmp_path):
    told, page = run(tmp_path, engine=fl.packed(lanes=2))
    assert list(told["seconds"]) == ["compile", "start", "rounds", "records", "end"] and min(told["seconds"].values()) >= 0
    assert told["rounds"] == 4 and told["lanes"] == {"share": 1.0, "needed": 32, "made": 32, "rounds": 4, "lanes": 2, "devices": 1}
    assert "<h2>Time</h2>" in page and "100.0 %" in page


def test_an_engine_without_a_queue_tells_nothing_of_lanes(tmp_path):
    told, page = run(tmp_path, engine=fl.padded())
    assert told["lanes"] == {} and "<h2>Time</h2>" in page and "Useful share" not in page
