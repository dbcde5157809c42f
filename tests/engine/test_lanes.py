"""The number of lanes, given or measured: the same result, and the fastest is kept."""

import jax
import numpy as np
import pytest
from experiment import assert_same, axes_mesh, expected, experiment, given

import fedjax_lite as fl
from fedjax_lite.engine import lanes, tune


@pytest.mark.deep
@pytest.mark.parametrize(("candidates", "devices"), [((2,), 1), pytest.param((1, 4), 2, marks=pytest.mark.deep)])
def test_measured_lanes_give_the_same_result(candidates, devices, x64, monkeypatch):
    monkeypatch.setattr(tune, "LONG_ENOUGH", 0.001)
    monkeypatch.setattr(lanes, "CANDIDATES", candidates)
    with axes_mesh(clients=devices):
        assert_same(jax.jit(experiment(fl.packed("auto")))(*given()), expected())


def test_lanes_are_measured_once_and_the_fastest_is_kept(monkeypatch):
    tried, trained, train = [], [], lanes.run_dry
    monkeypatch.setattr(tune, "_steps_a_second", lambda train, cohort, rows, lanes: tried.append(lanes) or {1: 10.0, 4: 30.0}[lanes])
    monkeypatch.setattr(
        lanes, "run_dry", lambda local, cohort, rows, width, step: trained.append(width(())) or train(local, cohort, rows, width, step)
    )
    run = experiment(fl.packed("auto"))
    for _ in range(2):  # traced twice
        jax.eval_shape(lambda *args: run(*args), *given())
    assert tried == [1, 4] and set(trained) == {4}  # a cohort of 5 has no use for 16


def test_measuring_stops_where_lanes_no_longer_pay_or_fit(monkeypatch):
    cohort = fl.Client(*[np.ones(4, np.int32)] * 5)
    rates = {1: 10.0, 4: 4.0, 16: 99.0}
    monkeypatch.setattr(tune, "_steps_a_second", lambda train, cohort, rows, lanes: rates[lanes])
    assert tune.fastest(lambda lanes: None, cohort, (), [1, 4, 16]) == 1

    def out_of_memory(train, cohort, rows, lanes):
        if lanes > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return float(lanes)

    monkeypatch.setattr(tune, "_steps_a_second", out_of_memory)
    assert tune.fastest(lambda lanes: None, cohort, (), [1, 4, 16]) == 4
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        tune.fastest(lambda lanes: None, cohort, (), [16])


@pytest.mark.parametrize("lanes", [0, -1, "many"])
def test_lanes_must_be_a_number_or_auto(lanes):
    with pytest.raises(ValueError, match='lanes must be at least 1, or "auto", got'):
        fl.packed(lanes)
