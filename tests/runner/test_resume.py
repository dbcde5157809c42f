"""A run that is killed and resumed ends, bit for bit, where one that was not does. Kills are real: other processes, signals."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from filelock import FileLock
from problems import softmax_data, softmax_loss, softmax_params
from tiny import TINY

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.engine.placement import mesh_of
from fedjax_lite.runner import folder
from fedjax_lite.runner.records import read_records

STATEFUL = (  # soon compiled, with something of every part of the state: moments at the server, rows of an uplink, a count a client
    TINY.replace('"mlp"\nhidden = [3]', '"linear"')
    .replace("batch_size = 2", 'batch_size = 2\nshuffle = false\nuplink = { name = "trace", decay = 0.5 }')
    .replace(
        "learning_rate = 0.1",
        "learning_rate = { name = 'exponential_decay', init_value = 0.1, transition_steps = 9, decay_rate = 0.5, clock = 'client_step' }",
    )
    .replace('[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }', '[server]\noptimizer = { name = "adam", learning_rate = 0.01 }')
    + '[engine]\nname = "sequential"\n'
)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(STATEFUL)
    return str(file)


def command(config, out, rounds, *more):
    return ["run", config, "--out", str(out), "--quiet", "--set", f"run.rounds={rounds}", *more]


def started_until(lines, arguments, out):
    """Start the command line in another process and wait until it has written some lines."""
    process = subprocess.Popen([sys.executable, "-m", "fedjax_lite", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < lines:
        if process.poll() is not None:
            pytest.fail(f"ended early: {process.communicate()}")
        time.sleep(0.01)
    return process


def status(out):
    return json.loads((out / "summary.json").read_text())["status"]


def resumed_to_the_same_bits(config, out, rounds):
    """Go on with a run that was stopped, and compare it with one that was not."""
    whole = out.with_name("whole")
    assert cli.main(command(config, out, rounds, "--resume")) == 0
    assert cli.main(command(config, whole, rounds)) == 0
    assert status(out) == status(whole) == "finished" and len(read_records(out)) == rounds
    for name in ("metrics.jsonl", "params.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.deep
def test_a_run_killed_in_the_middle_of_a_line_and_of_a_checkpoint_resumes_to_the_same_bits(config, tmp_path):
    out = tmp_path / "killed"
    process = started_until(6, command(config, out, 10**9), out)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and status(out) == "running"
    killed = len(read_records(out))
    assert killed > 0
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"round": 999, "lo')
    half = out / "checkpoints" / f"round_{killed + 2}.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (out / "summary.json.partial").write_text('{"status": "fin')
    resumed_to_the_same_bits(config, out, killed + 4)
    assert not half.exists()


@pytest.mark.deep
def test_a_run_that_was_interrupted_resumes_to_the_same_bits(config, tmp_path):
    """Ctrl-C: the segment in flight ends, and is saved."""
    out = tmp_path / "interrupted"
    process = started_until(4, command(config, out, 10**9), out)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    done = len(read_records(out))
    assert status(out) == "interrupted" and f"interrupted after {done} rounds" in printed and "--resume" in printed
    assert (out / "checkpoints" / f"round_{done}").is_dir() and (out / "params.safetensors").exists()
    resumed_to_the_same_bits(config, out, done + 4)


@pytest.mark.deep
def test_a_folder_that_another_process_is_writing_to_is_refused(config, tmp_path, capsys):
    out = tmp_path / "run"
    process = started_until(2, command(config, out, 10**9), out)
    process.send_signal(signal.SIGSTOP)  # it holds the folder, and costs nothing
    try:
        for more in ([], ["--resume"]):
            assert cli.main(command(config, out, 4, *more)) == 2
            assert f"error: out={out} is being written by another run: wait for it, stop it" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert cli.main(command(config, out, 4)) == 0  # who is dead holds nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1", "tiny.toml"]


# The rest kills by hand: it leaves the folder as a kill would.

DATA, KEY, SAMPLER = softmax_data(), jax.random.key(0), fl.sampling.uniform(3)


def averaging(engine, make=fl.algorithms.fedavg):
    return make(softmax_loss, optax.adam(0.1), batches=fl.Batches(4, shuffle=False), population=7, engine=engine)


FEDAVG = averaging(fl.sequential())  # segments of 2 rounds, and of 1: two compiled programs


def run(out, rounds=6, algorithm=FEDAVG, data=DATA, evaluate_every=2, **options):
    options = {"loss_fn": softmax_loss, "progress": False, "config": {"client": {"rate": 0.1}, "run": {"rounds": rounds}}} | options
    return fl.run(algorithm, data, softmax_params(), SAMPLER, rounds=rounds, key=KEY, evaluate_every=evaluate_every, out=out, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The metrics of six rounds that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return (out / "metrics.jsonl").read_bytes()


def test_a_run_without_a_checkpoint_starts_over(tmp_path, whole):
    run(tmp_path / "run", checkpoint_every=4, rounds=3)
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["round_3"]  # where it ended
    os.rename(tmp_path / "run" / "checkpoints" / "round_3", tmp_path / "round_3")
    assert len(run(tmp_path / "run", resume=True).history) == 6
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == whole
    run(tmp_path / "new", resume=True)  # nor is there a folder
    assert (tmp_path / "new" / "metrics.jsonl").read_bytes() == whole


def test_a_folder_that_another_run_is_writing_to_is_refused(tmp_path):
    out = tmp_path / "run"
    with FileLock(tmp_path / ".run.lock"):
        for resume in (False, True):
            with pytest.raises(ValueError, match=f"out={out} is being written by another run: wait for it, stop it"):
                run(out, resume=resume)
    assert run(out).status == "finished" and os.listdir(tmp_path) == ["run"]


def test_lines_after_the_last_checkpoint_are_made_again(tmp_path, whole):
    out = tmp_path / "run"
    run(out, rounds=4)
    with open(out / "metrics.jsonl", "ab") as file:
        file.write(b"".join(whole.splitlines(keepends=True)[4:]))
    run(out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == whole


@pytest.mark.deep
def test_other_segments_give_other_evaluations_but_the_same_state(tmp_path):
    run(tmp_path / "a", rounds=3)
    a = run(tmp_path / "a", rounds=7, evaluate_every=5, resume=True)
    b = run(tmp_path / "b", rounds=7, evaluate_every=1)
    np.testing.assert_array_equal(a.params, b.params)
    assert [record["round"] for record in a.history if "train_loss" in record] == [2, 3, 5, 7]
    assert [record["loss"] for record in a.history] == [record["loss"] for record in b.history]
    shorter = run(tmp_path / "a", rounds=5, resume=True)  # already further: left as it is
    assert shorter.status == "finished" and len(shorter.history) == 7


@pytest.mark.deep
def test_saved_on_one_device_resumed_on_several(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "run", rounds=2)
    with jax.set_mesh(mesh_of(jax.devices()[:2])):
        resumed = run(tmp_path / "run", resume=True)
    same_but_for_sums(resumed, whole)


@pytest.mark.deep
def test_saved_by_one_engine_resumed_by_others(tmp_path):
    whole = run(tmp_path / "whole", algorithm=averaging(fl.packed(3), fl.algorithms.fedavgm))
    run(tmp_path / "run", rounds=2, algorithm=averaging(fl.packed(1), fl.algorithms.fedavgm))
    with jax.set_mesh(mesh_of(jax.devices()[:4])):
        run(tmp_path / "run", rounds=4, algorithm=averaging(fl.padded(), fl.algorithms.fedavgm), resume=True)
    resumed = run(tmp_path / "run", algorithm=averaging(fl.packed(2), fl.algorithms.fedavgm), resume=True)
    same_but_for_sums(resumed, whole)


def same_but_for_sums(resumed, whole):
    assert [record["loss"] for record in resumed.history] == pytest.approx([record["loss"] for record in whole.history], rel=1e-5)
    np.testing.assert_allclose(resumed.params, whole.params, rtol=1e-5, atol=1e-6)


def test_a_shorter_metrics_file_than_the_checkpoint_is_refused(tmp_path):
    out = tmp_path / "run"
    run(out, rounds=4)
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for damaged in (lines[:2], lines[:2] + lines[3:], [b"{}\n"]):
        (out / "metrics.jsonl").write_bytes(b"".join(damaged))
        with pytest.raises(ValueError, match="whole lines of the 4 rounds of the checkpoint"):
            run(out, resume=True)


def test_what_makes_another_run_is_refused(tmp_path):
    out = tmp_path / "run"
    run(out, rounds=2)
    before = (out / "summary.json").read_bytes(), (out / "config.toml").read_bytes()
    momentum = averaging(fl.sequential(), fl.algorithms.fedavgm)
    with pytest.raises(ValueError, match="config.client.rate was 0.1, is now 0.2; resume with the configuration it was made with"):
        run(out, resume=True, config={"client": {"rate": 0.2}})
    with pytest.raises(ValueError, match="another configuration: data.sha256 was '"):
        run(out, resume=True, data=softmax_data(seed=5))
    with pytest.raises(ValueError, match="another configuration: test was None, is now {'clients': 7"):
        run(out, resume=True, test=DATA)
    with pytest.raises(ValueError, match="another configuration: state"):
        run(out, resume=True, algorithm=momentum)
    assert ((out / "summary.json").read_bytes(), (out / "config.toml").read_bytes()) == before
    free = {"run": {"rounds": 99}, "name": "x", "data": {"path": "moved"}}
    assert run(out, resume=True, rounds=3, config={"client": {"rate": 0.1}} | free).status == "finished"


def test_a_full_disk_is_said_once_and_with_what_to_do(tmp_path, monkeypatch):
    out, append = tmp_path / "run", folder.append

    def full(*_):
        raise OSError(28, "No space left on device")

    def full_in_the_fifth_round(path, text):
        if '"round": 5' not in text:
            return append(path, text)
        monkeypatch.setattr(folder, "write", full)
        full()

    monkeypatch.setattr(folder, "append", full_in_the_fifth_round)
    with pytest.raises(OSError, match="run could not be written .No space left on device.: make room, then resume after round 4") as error:
        run(out)
    assert "summary.json could not be written" in error.value.__notes__[0]
    monkeypatch.undo()
    assert run(out, resume=True).status == "finished"
