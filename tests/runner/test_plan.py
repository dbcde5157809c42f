"""What a run will cost: counted by hand from shapes, refused before compilation where it cannot fit."""

import functools
import re
import sys

import jax
import numpy as np
import optax
import pytest
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.engine.placement import mesh_of
from fedjax_lite.runner import fit, memory
from fedjax_lite.runner.arguments import check_kinds

plan_module = sys.modules["fedjax_lite.runner.plan"]  # its function hides it

MODEL = 4 * FEATURES * CLASSES  # bytes
EXAMPLES = sum(SIZES) * (4 * FEATURES + 4) + 8 * len(SIZES)  # with start and size of each client


def algorithm(aggregator=None, engine=None, uplink=None):
    return fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), aggregator or fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4, shuffle=False), population=len(SIZES), engine=engine or fl.sequential(), uplink=uplink,
    )  # fmt: skip


WHOLE = algorithm(fl.aggregators.median(), fl.packed(3), optax.trace(0.5))  # has one of each part
KEEPS = algorithm(uplink=optax.trace(0.5))


def call(function, built, data=None, **more):
    options = {"rounds": 4, "key": jax.random.key(0), "evaluate_every": 2, "loss_fn": softmax_loss} | more
    data = softmax_data() if data is None else data
    return function(built, data, softmax_params(), fl.sampling.cyclic(5), **options)


def plan(built, **more):
    return call(fl.plan, built, **more)


@functools.cache
def planned(built):
    """A plan that several tests look at."""
    return plan(built, test=softmax_data((2, 1)), evaluate_every=1)


@pytest.fixture
def untimed(monkeypatch):
    """No rounds are run: their program is one more to compile."""
    monkeypatch.setattr(plan_module, "_trial", lambda *args: 0.0)


def bytes_of(found):
    return {name: need.bytes for name, need in found.needs.items()}


def test_parts_are_counted():
    found = planned(WHOLE)
    parts = bytes_of(found)
    assert parts["data"] == EXAMPLES and parts["test data"] == 3 * (4 * FEATURES + 4) + 16
    assert parts["server"] == 2 * MODEL  # the state's and those given
    assert parts["clients' state"] == len(SIZES) * MODEL and parts["messages"] == 5 * MODEL
    assert 3 * MODEL <= parts["lane stack"] < 6 * MODEL and found.needs["lane stack"].note == "3 lanes"
    assert found.parameters == FEATURES * CLASSES and found.devices == 1
    assert sum(parts.values()) < found.peak < 10 * sum(parts.values())
    assert found.compile_seconds > 0 and found.round_seconds > 0
    steps = [-(-size // 4) for size in SIZES]
    assert found.longest <= max(steps) and 5 <= found.steps <= sum(sorted(steps)[-5:])


@pytest.mark.parametrize(("engine", "lanes"), [(fl.padded(), 5), (fl.sequential(), 1), (fl.packed(2), 2), (fl.packed("auto"), 5)])
def test_lanes_of_each_engine(engine, lanes):
    built = algorithm(engine=engine)
    shapes = jax.eval_shape(built.init, softmax_params(), jax.random.key(0))
    found = memory.needs(built, softmax_data(), softmax_params(), shapes, fl.sampling.uniform(5), None)
    assert found["lane stack"].note.split()[0] == str(lanes) and found["messages"].bytes == 0
    with jax.set_mesh(mesh_of(jax.devices()[:4])):  # two clients a device
        found = memory.needs(built, softmax_data(), softmax_params(), shapes, fl.sampling.uniform(5), None)
    assert found["lane stack"].note.split()[0] == str(min(lanes, 2))


@pytest.mark.deep
def test_a_store_needs_a_few_cohorts_and_rows_in_host_memory_theirs(tmp_path):
    found = bytes_of(plan(KEEPS, data=fl.data.save(tmp_path / "s", softmax_data()), own_on_host=True))
    assert found["clients' state"] == 5 * MODEL
    assert found["data"] == int(3 * 5 * sum(SIZES) / 7 * (4 * FEATURES + 4)) + 4 * 7


REFUSED = {
    "messages": (algorithm(fl.aggregators.median(), fl.packed(1)), r"lower the clients a round \(5\), or take an aggregator that adds"),
    "lane stack": (algorithm(engine=fl.packed(4)), r"lower lanes \(4\) of packed\(lanes\)"),
    "data": (algorithm(engine=fl.packed(1)), "write the population with fl.data.save and stream it"),
    "clients' state": (KEEPS, r"keep it in host memory \(own_on_host = true\)"),
}


@pytest.mark.parametrize("largest", REFUSED)
@pytest.mark.parametrize("function", [fl.run, fl.plan])
def test_what_cannot_fit_is_refused_before_compilation(largest, function, monkeypatch):
    """The limit lies just below what is needed, and examples are made light where something else is to be the largest."""
    built, remedy = REFUSED[largest]
    data = softmax_data() if largest == "data" else softmax_data((1,) * 7)
    for module in (fit, plan_module):
        monkeypatch.setattr(module, "device_memory", lambda: 500)
    before = {**vars(built.round).get("_programs", {})}
    with pytest.raises(ValueError, match=rf"a round needs [\d.]+ k?B on each device, which has 500 B \({largest} [\d.]+ k?B, .*{remedy}"):
        call(function, built, data=data, own_on_host=False)
    assert vars(built.round).get("_programs", {}) == before


def test_working_memory_that_cannot_fit_is_refused_after_compilation(monkeypatch, untimed):
    peak = planned(WHOLE).peak
    planned_again = functools.partial(plan, WHOLE, test=softmax_data((2, 1)), evaluate_every=1)
    monkeypatch.setattr(plan_module, "device_memory", lambda: peak - 1)
    with pytest.raises(ValueError, match="lower the batch size|stream it"):
        planned_again()
    monkeypatch.setattr(plan_module, "device_memory", lambda: peak)
    assert planned_again().limit == peak


def test_rows_that_take_more_than_half_of_a_device_go_to_host_memory(monkeypatch):
    for limit, touched in [(10**9, False), (10 * MODEL, True)]:
        monkeypatch.setattr(memory, "device_memory", lambda limit=limit: limit)
        result = call(fl.run, KEEPS, rounds=1, loss_fn=None, evaluate_every=1, progress=False)
        assert isinstance(result.state.uplink, fl.Touched) == touched


def test_rows_in_host_memory_are_not_in_the_peak(untimed):
    peaks = [plan(KEEPS, own_on_host=on_host, evaluate_every=1, loss_fn=None).peak for on_host in (False, True)]
    assert peaks[0] - peaks[1] >= 2 * MODEL - 100  # of seven clients and of a cohort of five


@pytest.mark.deep
def test_rows_in_host_memory_are_counted_and_refused_where_they_are_too_many(monkeypatch, untimed):
    found = plan(KEEPS, own_on_host=True, rounds=2)
    met = 7 * (1 - (2 / 7) ** 2)  # of seven clients, five a round; all of a segment of two rounds are on their way
    assert found.host.bytes == (round(met) + 7) * MODEL and found.host.note == "of about 6 of 7 clients, and 7 rows on their way"
    assert re.search(r"\nin host memory +936 B  rows of about 6 of 7", str(found)) and plan(KEEPS, own_on_host=False).host is None
    for function in (fl.run, fl.plan):
        monkeypatch.setattr(memory, "host_memory", lambda: 13 * MODEL - 1)
        with pytest.raises(ValueError, match=r"about 6 clients keep takes 936 B of host memory, which has 935 B: lower the rounds \(2\)"):
            call(function, KEEPS, rounds=2, own_on_host=True)


def test_an_algorithm_without_a_layout_is_planned_as_far_as_it_tells(monkeypatch, untimed):
    found = plan(KEEPS._replace(layout=None))
    assert "lane stack" not in found.needs and found.steps is None and "steps a round      not known" in str(found)
    monkeypatch.setattr(memory, "device_memory", lambda: 10)
    assert not memory.goes_to_host(None, KEEPS._replace(layout=None), jax.eval_shape(KEEPS.init, softmax_params(), jax.random.key(0)), 1.0)


@pytest.mark.parametrize(
    ("rows", "participations", "limit", "host"),
    [
        (2**24, 0.01, None, False),  # small
        (2**24 + 4, 0.01, None, True),  # large, and nine of ten clients are never met
        (2**24 + 4, 0.1, None, False),  # most may be met
        (2**24 + 4, 5.0, 2**25, True),  # more than half of the device
        (2**24, 5.0, 2**25, False),
    ],
)
def test_rows_go_to_the_host_where_they_are_too_many_or_mostly_untouched(rows, participations, limit, host, monkeypatch):
    monkeypatch.setattr(memory, "device_memory", lambda: limit)
    state = fl.State((), (), (), (), jax.ShapeDtypeStruct((rows // 4,), np.int32), ())
    assert memory.goes_to_host(None, algorithm(), state, participations) is host
    assert [memory.goes_to_host(wanted, algorithm(), state, participations) for wanted in (False, True)] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"evaluate_every": 0}, "evaluate_every must be"),
    ],
)
@pytest.mark.parametrize("function", [fl.run, fl.plan])
def test_options_are_checked(function, options, message):
    with pytest.raises(ValueError, match=message):
        call(function, algorithm(), **options)


def test_data_of_another_kind_is_refused(tmp_path):
    data = softmax_data()
    with pytest.raises(TypeError, match="got a TrainTest: of a TrainTest, pass data.train"):
        check_kinds(fl.TrainTest(data, None), None)
    with pytest.raises(TypeError, match="got a Store: of a Store, pass store.in_memory"):
        check_kinds(data, fl.data.save(tmp_path / "s", data))


def test_what_this_machine_has(monkeypatch, tmp_path):
    assert 2**28 < memory.device_memory() < 2**45
    alone = memory.device_memory()
    with jax.set_mesh(mesh_of(jax.devices()[:4])):
        assert memory.device_memory() == alone // 4
    (tmp_path / "max").write_text("4096\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "max")
    assert memory.device_memory() == 4096
    (tmp_path / "max").write_text("max\n")
    assert memory.device_memory() == alone or memory.device_memory() > alone


def test_the_table_is_for_a_person():
    text = str(planned(WHOLE))
    assert text.startswith("parameters         18\non the device\n  data") and "expected peak" in text and "a round            " in text
    assert np.char.str_len(text.split("\n")).max() < 100
