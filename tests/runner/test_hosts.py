"""Several processes, one device each, give the result of one process. They are real processes that talk over the loopback."""

import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT
from filelock import FileLock
from problems import SIZES, softmax_data
from processes import free_port, in_two_processes
from streamed import SAMPLERS, trained

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.runner import folder, hosts
from fedjax_lite.runner.folder import RunFolder
from fedjax_lite.runner.records import read_records


@pytest.mark.deep
def test_a_streamed_run_of_two_processes_is_one_of_one_and_each_resumes_the_other(tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    whole = trained(store, SAMPLERS["uniform"], loss_fn=None)

    outputs = in_two_processes("", tmp_path / "run", store.path, 3, "host")
    assert outputs[0].split("loss:")[1] == outputs[1].split("loss:")[1]
    read = [set(map(int, re.search(r"read: \[(.*)\]", out)[1].split(", "))) for out in outputs]
    assert all(0 < len(clients) < len(SIZES) for clients in read)  # nobody read everything
    assert losses(read_records(tmp_path / "run")) == pytest.approx(losses(whole.history[:3]), rel=1e-6)

    options = {"loss_fn": None, "rounds": 4, "out": tmp_path / "run", "resume": True}
    resumed = trained(softmax_data(), SAMPLERS["uniform"], **options)  # one process, in memory
    assert len(resumed.history) == 4
    in_two_processes("", tmp_path / "run", store.path, 6, "device")
    assert losses(read_records(tmp_path / "run")) == pytest.approx(losses(whole.history), rel=1e-6)
    assert (tmp_path / "run" / "report.html").exists()


def losses(records):
    return [record["loss"] for record in records]


@pytest.mark.deep
def test_what_only_the_leader_runs_into_ends_all(tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    with FileLock(tmp_path / ".run.lock"):
        leader, other = in_two_processes("", tmp_path / "run", store.path, 3, "device", well=False, limit=100)
    assert "run is being written by another run" in leader and "the process that writes has failed: it says why" in other


@pytest.mark.deep
def test_a_folder_that_is_not_the_same_for_all_is_refused(tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    for errors in in_two_processes("", tmp_path / "run-PROCESS", store.path, 3, "device", well=False, limit=100):
        assert "is not one folder that all processes see" in errors


# The same, as one process sees it: what the others do is put in its way.


@pytest.mark.parametrize("leads", [True, False])
def test_who_does_not_write_fails_with_who_does(leads, monkeypatch):
    monkeypatch.setattr(hosts, "leads", lambda: leads)
    monkeypatch.setattr(hosts, "agreed", lambda failed: failed or not leads)
    done = []
    kind, message = (ValueError, "mine") if leads else (OSError, "the process that writes has failed: it says why")
    with pytest.raises(kind, match=message):
        hosts.by_leader(lambda: done.append(1) or fail("mine"))
    assert len(done) == leads


def fail(text):
    raise ValueError(text)


def test_a_folder_that_this_process_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for name, value in (("common", lambda number: number), ("by_leader", lambda fn: None), ("agreed", lambda flag: flag)):
        monkeypatch.setattr(folder, name, value)
    with pytest.raises(ValueError, match="is not one folder that all processes see: give all the same one, on a shared disk"):
        RunFolder(tmp_path / "run", {}, None)._check_seen()


def test_processes_with_different_things_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for others, same in ((lambda x: x, True), (lambda x: x + 1, False)):
        monkeypatch.setattr(hosts.multihost_utils, "process_allgather", lambda x, others=others: np.array([x, others(x)]))
        if same:
            hosts.check_same("data")
        else:
            with pytest.raises(ValueError, match="the processes have different data, models, keys or settings"):
                hosts.check_same("data")


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"process 0 cannot listen on port {port}"):
            fl.join_hosts(f"127.0.0.1:{port}", 2, 0)


def command(*arguments):
    """The command line's exit status and what it says, in a process of its own."""
    line = [sys.executable, "-m", "fedjax_lite", "run", "configs/quickstart.toml", *arguments]
    process = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)
    return process.returncode, process.stderr


@pytest.fixture
def here(monkeypatch, capsys):
    """The same in this process, where jax is told what to do when it should join."""

    def here(initialize, *arguments):
        monkeypatch.setattr(jax.distributed, "initialize", initialize)
        monkeypatch.setattr(jax.config, "update", lambda *args: None)
        return cli.main(["run", str(ROOT / "configs" / "quickstart.toml"), *arguments]), capsys.readouterr().err

    return here


def joining(*process):
    return ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process", *process, "--timeout"]


@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_that_never_joins_is_reported(process, here):
    status, errors = here(lambda *args, **more: time.sleep(1), *joining(process), "0.1")
    assert status == 1 and "not all of 2 processes at 127.0.0.1:" in errors and "joined within 0.1 s" in errors


@pytest.mark.deep
@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_that_never_joins_is_reported_with_the_time_out(process):
    status, errors = command(*joining(process), "1")
    assert status == 1 and "not all of 2 processes at 127.0.0.1:" in errors and "joined within 1 s" in errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"coordinator": "a:1"}, "processes, process is missing"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, r"process must be in \[0, processes\), got process=2"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "coordinator must be host:port, got 'a'"),
        ({"timeout": 0.0}, "timeout must be seconds from above 0 to 1,000,000, got 0"),
        ({"timeout": float("inf")}, "timeout must be seconds .*, got inf"),
        ({"timeout": float("nan")}, "timeout must be seconds .*, got nan"),
    ],
)
def test_what_does_not_name_a_job_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fl.join_hosts(**arguments)


def test_outside_a_job_joining_says_what_to_give(here):
    status, errors = here(lambda *args, **more: fail("coordinator_address should be defined."), "--hosts", "--timeout", "9")
    assert status == 2 and "give coordinator, processes and process" in errors


@pytest.mark.deep
def test_outside_a_job_joining_says_what_to_give_in_a_process_of_its_own():
    status, errors = command("--hosts")
    assert status == 2 and "give coordinator, processes and process" in errors
