"""`run`: segments of rounds and evaluations, and what it refuses. Folders are in test_run_folder.py, endings in test_stopping.py."""

import html
import json

import jax
import numpy as np
import optax
import pytest
from problems import softmax_params
from segments import DATA, FEDSGD, KEY, SAMPLER, TEST, TRACED, loss, run, same_bits

import fedjax_lite as fl


def test_segments_are_one_simulation():
    result = run()
    state, history = jax.jit(lambda data: fl.simulate(FEDSGD, data, softmax_params(), SAMPLER, rounds=7, key=KEY))(DATA)
    same_bits(result.state, state)
    same_bits(result.params, FEDSGD.params(state))
    assert result.status == "finished"
    assert [record["round"] for record in result.history] == list(range(1, 8))
    for name, values in history.items():
        assert [record[name] for record in result.history] == values.tolist()


def test_the_model_is_evaluated_after_each_segment_and_at_the_end():
    history = run().history
    assert [record["round"] for record in history if "test_loss" in record] == [3, 6, 7]
    evaluate = jax.jit(lambda params: fl.evaluate(loss, params, TEST))
    for rounds in (6, 7):
        expected, record = fl.summarize(evaluate(run(rounds).params)), history[rounds - 1]
        assert set(expected) <= set(record)
        np.testing.assert_allclose(record["test_loss"], expected["test_loss"], rtol=1e-5)
        np.testing.assert_allclose(record["test_accuracy"], expected["test_accuracy"], rtol=1e-5)
    assert len(history[5]["test_clients"]["accuracy"]["values"]) == sum(size > 0 for size in TEST.size)


def test_without_a_test_part():
    record = run(rounds=3, test=None).history[-1]
    assert "train_loss" in record and "test_loss" not in record


def test_without_a_loss_there_is_what_training_tells():
    fedavg = fl.algorithms.fedavg(loss, optax.sgd(0.1), batches=fl.Batches(4), population=7, engine=fl.sequential())
    bits = {"uplink_bits", "uplink_side_bits", "downlink_bits"}
    from_training = {"round", "loss", "initial_loss", "accuracy", "clients", "update_norm", "non_finite"}
    assert set(run(rounds=3, algorithm=fedavg, loss_fn=None).history[-1]) == from_training | bits


def test_one_host_synchronisation_a_segment(monkeypatch):
    run()  # compiled
    calls, get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: calls.append(1) or get(x))
    with jax.transfer_guard_device_to_host("disallow"):
        run()
    assert len(calls) == 3


def test_a_program_is_traced_once():
    run(rounds=3)
    once = len(TRACED)
    run(rounds=6)  # twice as long, and another run of the same parts
    assert len(TRACED) == once > 0


def test_the_callers_arrays_live_on():
    params = softmax_params()
    for _ in range(2):
        run(rounds=3, params=params)
    assert np.isfinite(params).all() and jax.random.key_data(KEY).shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"rounds": True}, "rounds must be"),
        ({"evaluate_every": 0}, "evaluate_every must be"),
        ({"checkpoint_every": 4}, "checkpoint_every=4 must be a multiple of evaluate_every=3"),
        ({"checkpoint_every": 0}, "checkpoint_every must be"),
        ({"converge": fl.Convergence(patience=0)}, "patience >= 1 and"),
        ({"converge": fl.Convergence(tolerance=-1.0)}, "tolerance >= 0"),
        ({"converge": fl.Convergence("test_los")}, "no metric 'test_los'; there are .*update_norm.*test_loss"),
        ({"sampler": fl.sampling.uniform(8)}, "clients=8 is more than the population of 7"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match="resume=True needs out"):
        run(resume=True)


def test_a_notebook_shows_the_report(tmp_path):
    result = run(3)
    shown = html.unescape(result._repr_html_())
    assert shown.startswith("<iframe srcdoc=") and "<!doctype html>" in shown and "finished</span> after 3 rounds" in shown
    assert result.summary["final"] == result.history[-1]
    kept = run(3, out=tmp_path / "run")
    assert kept.summary == json.loads((tmp_path / "run" / "summary.json").read_text())
