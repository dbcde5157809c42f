"""`run`: segments, evaluation, stopping, records, and what it refuses. Killed runs are in test_resume.py."""

import io
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import slope_data, slope_loss, softmax_data, softmax_loss, softmax_params
from rich.console import Console
from safetensors.numpy import load_file

import fedjax_lite as fl
from fedjax_lite.folder import read_records
from fedjax_lite.progress import Progress

DATA, TEST, KEY = softmax_data(), softmax_data((3, 0, 4, 1, 6, 2, 5), seed=1, empty=True), jax.random.key(0)
SAMPLER = fl.sampling.uniform(3)


def fedavg(rate=0.1, population=7):
    return fl.algorithms.fedavg(softmax_loss, optax.sgd(rate), batches=fl.Batches(4), population=population)


FEDAVG = fedavg()  # one algorithm, so one compiled program a segment length


def run(rounds=7, algorithm=FEDAVG, sampler=SAMPLER, test=TEST, evaluate_every=3, **options):
    return fl.run(
        algorithm,
        DATA,
        softmax_params(),
        sampler,
        rounds=rounds,
        key=KEY,
        loss_fn=options.pop("loss_fn", softmax_loss),
        test=test,
        evaluate_every=evaluate_every,
        progress=False,
        **options,
    )


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def same_bits(a, b):
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(plain(x), plain(y), strict=True), a, b)


def test_segments_are_one_simulation():
    result = run()
    state, history = jax.jit(lambda data: fl.simulate(FEDAVG, data, softmax_params(), SAMPLER, rounds=7, key=KEY))(DATA)
    same_bits(result.state, state)
    same_bits(result.params, FEDAVG.params(state))
    assert result.status == "finished"
    assert [record["round"] for record in result.history] == list(range(1, 8))
    for name, values in history.items():
        assert [record[name] for record in result.history] == values.tolist()


def test_a_model_may_be_a_number():
    algorithm = fl.algorithms.fedavg(slope_loss, optax.sgd(0.1), batches=fl.Batches(1), population=3)
    result = fl.run(algorithm, slope_data(), 1.0, fl.sampling.everyone(), rounds=2, key=KEY, progress=False)
    np.testing.assert_allclose(result.params, 0.8, rtol=1e-6)


def test_the_model_is_evaluated_after_each_segment_and_at_the_end():
    history = run().history
    assert [record["round"] for record in history if "test_loss" in record] == [3, 6, 7]
    state, _ = fl.simulate(FEDAVG, DATA, softmax_params(), SAMPLER, rounds=6, key=KEY)
    expected = fl.summarize(fl.evaluate(softmax_loss, FEDAVG.params(state), TEST))
    assert set(expected) <= set(history[5])
    np.testing.assert_allclose(history[5]["test_loss"], expected["test_loss"], rtol=1e-5)
    assert 0 <= history[5]["test_accuracy"] <= 1
    assert len(history[5]["test_clients"]["accuracy"]["deciles"]) == 9


def test_without_a_test_part_or_a_loss():
    history = run(rounds=3, test=None).history
    assert "train_loss" in history[-1] and "test_loss" not in history[-1]
    bits = {"uplink_bits", "uplink_side_bits", "downlink_bits"}
    from_training = {"round", "loss", "initial_loss", "accuracy", "clients", "update_norm", "non_finite"}
    assert set(run(rounds=3, loss_fn=None).history[-1]) == from_training | bits


def test_one_host_synchronisation_a_segment(monkeypatch):
    run()  # compiled
    calls, get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: calls.append(1) or get(x))
    with jax.transfer_guard_device_to_host("disallow"):
        run()
    assert len(calls) == 3


def test_a_program_is_traced_once():
    traced = []

    def counted(params, batch, key):
        traced.append(1)
        return softmax_loss(params, batch, key)

    algorithm = fl.algorithms.fedavg(counted, optax.sgd(0.1), batches=fl.Batches(4), population=7)
    run(rounds=3, algorithm=algorithm, loss_fn=counted)
    once = len(traced)
    run(rounds=6, algorithm=algorithm, loss_fn=counted)  # twice as long, and another run of the same parts
    assert len(traced) == once


def test_the_callers_arrays_live_on():
    params = softmax_params()
    for _ in range(2):
        fl.run(FEDAVG, DATA, params, SAMPLER, rounds=3, key=KEY, evaluate_every=3)
    assert np.isfinite(params).all() and jax.random.key_data(KEY).shape == (2,)


def test_a_run_on_disk(tmp_path):
    out = tmp_path / "deep" / "run"
    result = run(out=out, config={"client": {"rate": 0.1}, "model": {"hidden": [2, 3]}})
    assert read_records(out) == result.history
    assert set(os.listdir(out)) == {"metrics.jsonl", "summary.json", "params.safetensors", "report.html", "checkpoints", "config.toml"}
    assert sorted(os.listdir(out / "checkpoints")) == ["round_6", "round_7"]
    np.testing.assert_array_equal(load_file(out / "params.safetensors")["params"], result.params)
    written = summary(out)
    assert (written["status"], written["rounds"], written["final"]) == ("finished", 7, result.history[-1])
    assert written["data"] == DATA.fingerprint() and written["test"]["examples"] == 21
    assert written["device"]["platform"] == "cpu" and len(written["code"]["sha256"]) == 16 and written["code"]["jax"]
    assert "hidden = [2, 3]" in (out / "config.toml").read_text()


def test_a_run_that_goes_on_says_so(tmp_path, monkeypatch):
    run(rounds=3, out=tmp_path / "run")
    seen = []
    monkeypatch.setattr(Progress, "update", lambda self, record: seen.append((record["round"], summary(tmp_path / "run")["status"])))
    run(rounds=9, out=tmp_path / "run", resume=True, checkpoint_every=9)
    assert seen == [(6, "running"), (9, "running")]


def test_rounds_without_clients_are_null(tmp_path):
    def nobody_first(key, sizes, round):
        return fl.sampling.cohort(key, sizes, jnp.arange(3), jnp.full(3, 1.0) * (round >= 2))

    result = run(rounds=3, sampler=nobody_first, out=tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert '"loss": null' in lines[0] and '"loss": null' not in lines[2]
    assert [record["loss"] is None for record in result.history] == [True, True, False]
    assert [record["clients"] for record in result.history] == [0, 0, 3]
    again = run(rounds=5, sampler=nobody_first, out=tmp_path / "run", resume=True)
    assert again.history[:3] == result.history


# Stopping


@pytest.mark.parametrize(
    ("metric", "values", "reached"),
    [
        ("test_loss", [3, 2, 1, 0], False),
        ("test_loss", [3, 2, 1.95, 1.91], True),
        ("test_loss", [3, 2, 1.95, 1.89], False),  # slow, but together it is more than the tolerance
        ("test_loss", [3, 2, 9], False),
        ("test_loss", [3, 2, 9, 9], True),
        ("test_loss", [3, 2, None, None, 2], False),  # nothing was measured
        ("test_accuracy", [0.1, 0.3, 0.5, 0.7], False),
        ("test_accuracy", [0.1, 0.7, 0.7, 0.75], True),
    ],
)
def test_convergence(metric, values, reached):
    assert fl.Convergence(metric, tolerance=0.1, patience=2).reached([{metric: value} for value in values]) is reached


def test_a_round_without_clients_is_no_convergence():
    history = [{"update_norm": 1.0, "clients": 2.0}, *[{"update_norm": 0.0, "clients": 0.0}] * 9]
    assert not fl.Convergence("update_norm", patience=2).reached(history)


def test_a_run_stops_when_it_has_converged_and_resumes_as_such(tmp_path):
    options = {"rounds": 60, "converge": fl.Convergence("test_loss", tolerance=10, patience=2), "out": tmp_path / "run"}
    result = run(**options)
    assert (result.status, len(result.history)) == ("converged", 9)  # the first evaluation, then two that are not better by 10
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run(**options, resume=True).status == "converged"
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    more = options | {"converge": fl.Convergence("test_loss", tolerance=10, patience=3)}
    assert len(run(**more, resume=True).history) == 12
    assert summary(tmp_path / "run")["status"] == "converged"


@pytest.fixture
def ctrl_c():
    """Ctrl-C acts as in a program of one's own, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_ends_the_run_after_its_segment(tmp_path, monkeypatch, ctrl_c):
    def update(self, record):
        if record["round"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "update", update)
    result = run(out=tmp_path / "run")
    assert (result.status, len(result.history)) == ("interrupted", 3)
    assert summary(tmp_path / "run")["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    same_bits(run(out=tmp_path / "run", resume=True).state, run().state)


def test_a_second_signal_ends_it_at_once_and_it_can_be_resumed(tmp_path, monkeypatch, ctrl_c):
    def update(self, record):
        if record["round"] == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path / "run")
    assert summary(tmp_path / "run")["status"] == "interrupted"
    monkeypatch.undo()
    same_bits(run(out=tmp_path / "run", resume=True).state, run().state)


def test_a_run_that_diverges_names_the_round_and_keeps_its_last_good_checkpoint(tmp_path):
    def loss_fn(params, batch, key):  # the loss is 1 at first, falls by 1 a round, and from round 6 on is NaN
        return jnp.where(params < -4.5, jnp.nan, 1.0) + params * batch["one"]

    data = fl.FederatedData.from_clients([{"one": np.ones(1)}] * 2)
    algorithm = fl.algorithms.fedsgd(loss_fn, population=2, learning_rate=1.0)

    def start(rounds, **options):
        everyone = fl.sampling.everyone()
        return fl.run(algorithm, data, jnp.zeros(()), everyone, rounds=rounds, key=KEY, evaluate_every=2, out=tmp_path / "run", **options)

    for resume in (False, True):  # to resume it is to diverge again
        with pytest.raises(FloatingPointError, match=r"round 6 is no longer finite \(loss=nan\).*checkpoint after round 4"):
            start(8, resume=resume)
        written = summary(tmp_path / "run")
        assert (written["status"], written["rounds"]) == ("diverged", 5) and "round 6" in written["error"]
        assert len(read_records(tmp_path / "run")) == 5
        assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["round_2", "round_4"]
    result = start(4, resume=True)
    assert result.status == "finished" and result.params == -4


def test_an_evaluation_that_is_not_finite_stops_too():
    overflow = lambda params, batch, key: jnp.full(batch["y"].shape, jnp.inf)  # noqa: E731
    with pytest.raises(FloatingPointError, match=r"round 3 .*test_loss=inf"):
        run(loss_fn=overflow)
    with pytest.raises(FloatingPointError, match=r"round 1 .*non_finite=\d.0, all messages"):
        run(algorithm=fedavg(rate=3e38))


# What is already in the folder


def test_a_run_in_the_way_is_moved_aside(tmp_path, capsys):
    for rounds in (3, 4, 5):
        run(rounds=rounds, out=tmp_path / "run")
    assert [summary(tmp_path / name)["rounds"] for name in ("run", "run.1", "run.2")] == [5, 3, 4]
    assert "held a run (status finished): moved to" in capsys.readouterr().err


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is a file"):
        run(out=tmp_path / "file")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        run(out=tmp_path / "thesis")
    with pytest.raises(ValueError, match="cannot be made"):
        run(out=tmp_path / "file" / "below", resume=True)
    assert run(rounds=3, out=tmp_path / "empty").status == "finished"
    assert (tmp_path / "file").read_text() == (tmp_path / "thesis" / "chapter").read_text() == "mine"


# What is refused, before anything is written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"rounds": True}, "rounds must be"),
        ({"evaluate_every": 0}, "evaluate_every must be"),
        ({"checkpoint_every": 4}, "checkpoint_every=4 must be a multiple of evaluate_every=3"),
        ({"checkpoint_every": 0}, "checkpoint_every must be"),
        ({"converge": fl.Convergence(patience=0)}, "patience >= 1"),
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


# The bar


def test_the_bar_shows_rounds_a_second_time_left_and_the_evaluation():
    def shown(terminal):
        stream = io.StringIO()
        with Progress(10, 2, True, Console(file=stream, force_terminal=terminal, width=150)) as bar:
            for done in (4, 6, 8):
                bar.update({"round": done, "loss": 1.5, "test_accuracy": 0.25, "test_clients": {}})
            bar.note("stopping")
        return stream.getvalue()

    text = shown(True)
    assert "8/10" in text and "rounds/s" in text and "left" in text and "stopping" in text
    assert shown(False).strip() == ""
