"""Runs under a clock, and by samplers with a memory: killed and resumed, streamed, planned and written, all with the same bits."""

import functools

import jax
import numpy as np
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.runner.records import read_records

POPULATION = len(SIZES)
DEVICES = fl.clock.lognormal(POPULATION, steps=0.01, sigma=1.0, download=100.0, upload=50.0)  # a round takes minutes
LAW = fl.availability.day_night(spread=0.2)


@functools.cache
def made(kind, rounds=6, seed=0):
    """An algorithm with rows that clients keep, and a sampler with a memory, or a table of arrivals."""
    make = fl.algorithms.fedbuff if kind == "arrivals" else fl.algorithms.fedavg
    more = {"buffer": 2} if kind == "arrivals" else {}
    uplink = optax.trace(0.5)
    algorithm = make(
        softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=POPULATION, uplink=uplink, engine=fl.sequential(), **more
    )
    if kind == "arrivals":
        given = {"concurrency": 3, "rounds": rounds, "availability": LAW, "seed": seed}
        table = fl.clock.arrivals(algorithm, softmax_data(), softmax_params(), DEVICES, **given)
        return algorithm, fl.clock.arriving(table)
    sampler = {
        "clock": lambda: fl.clock.timed(fl.sampling.uniform(2), DEVICES, availability=LAW, deadline=1500.0, over_selection=1.5),
        "oort": lambda: fl.sampling.oort(softmax_loss, clients=2),
        "power of choice": lambda: fl.sampling.power_of_choice(softmax_loss, clients=2, candidates=4),
    }[kind]()
    return algorithm, sampler


def run(kind, data=None, table=(), **more):
    algorithm, sampler = made(kind, *table)
    kwargs = {"rounds": 6, "key": jax.random.key(3), "evaluate_every": 2, "loss_fn": softmax_loss, "progress": False, "own_on_host": False}
    return fl.run(algorithm, data or softmax_data(), softmax_params(), sampler, **kwargs | more)


@functools.cache
def whole(kind):
    return run(kind)


def same(a, b):
    assert a.history == b.history
    for x, y in zip(jax.tree.leaves(a.state._replace(key=())), jax.tree.leaves(b.state._replace(key=())), strict=True):
        np.testing.assert_array_equal(x, y)


KINDS = ["clock", *(pytest.param(kind, marks=pytest.mark.deep) for kind in ("oort", "arrivals", "power of choice"))]


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_runs_end_where_whole_runs_do(kind, tmp_path):
    run(kind, rounds=4, out=tmp_path / "run")
    resumed = run(kind, out=tmp_path / "run", resume=True)
    same(resumed, whole(kind))
    assert len(read_records(tmp_path / "run")) == 6
    drawn = whole(kind).clients["rounds"]
    assert (resumed.clients["rounds"] == drawn).all() and drawn.sum() == sum(record["clients"] for record in resumed.history)


@pytest.mark.deep
def test_a_run_goes_on_with_a_longer_table_that_begins_alike(tmp_path):
    run("arrivals", rounds=2, table=(2,), out=tmp_path / "run")
    with pytest.raises(ValueError, match="arriving: the table has 2 steps of the server, and the run rounds=3: make a table for as many"):
        run("arrivals", rounds=3, table=(2,), out=tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="another configuration: parts.sampler of the first 1 steps"):
        run("arrivals", rounds=3, table=(3, 1), out=tmp_path / "run", resume=True)
    resumed = run("arrivals", rounds=3, table=(3,), out=tmp_path / "run", resume=True)
    hours = made("arrivals", 3)[1].arrivals.seconds / 3600
    np.testing.assert_allclose([record["virtual_hours"] for record in resumed.history], hours, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_runs_are_those_in_memory(kind, tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    same(run(kind, store), whole(kind))


@pytest.mark.deep
def test_rows_in_host_memory_change_nothing():
    history = run("clock", own_on_host=True).history
    assert history == whole("clock").history


def test_a_clock_says_what_it_counts(tmp_path):
    """Hours add up, whoever counts was waited for, and the report draws accuracy over hours."""
    result = run("clock", out=tmp_path / "run")
    seconds, hours = (np.array([record[name] for record in result.history]) for name in ("seconds", "virtual_hours"))
    np.testing.assert_allclose(hours, np.cumsum(seconds) / 3600, rtol=1e-5)
    assert all(record["clients"] == record["waited_for"] for record in result.history)
    assert sum(record["waited_for"] + record["too_late"] + record["lost"] for record in result.history) > 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "accuracy over virtual hours" in page and "Staleness" not in page


@pytest.mark.deep
def test_a_plan_tells_the_hours_and_the_staleness_of_a_run():
    for kind, line in (("clock", "waited for"), ("arrivals", "staleness")):
        algorithm, sampler = made(kind)
        kwargs = {"rounds": 6, "key": jax.random.key(3), "loss_fn": softmax_loss}
        found = fl.plan(algorithm, softmax_data(), softmax_params(), sampler, **kwargs)
        np.testing.assert_allclose(found.clock["seconds"], [record["seconds"] for record in whole(kind).history], rtol=1e-6)
        assert "virtual time" in str(found) and line in str(found)
