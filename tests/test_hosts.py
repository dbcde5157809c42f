"""Several processes, one device each, give the result of one process. They are real processes that talk over the loopback."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from contract import KINDS
from filelock import FileLock
from problems import SIZES, softmax_data
from streamed import SAMPLERS, trained

import fedjax_lite as fl
from fedjax_lite.folder import read_records

ROOT = Path(__file__).parent.parent
WORKER = ROOT / "tests" / "support" / "one_of_two.py"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def in_two_processes(*arguments, limit=300, well=True):
    """Their outputs, and what they complain of if they must not end well."""
    port = free_port()
    lines = [[sys.executable, str(WORKER), str(i), str(port), *(str(x).replace("PROCESS", str(i)) for x in arguments)] for i in range(2)]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for line in lines]
    outputs = [process.communicate(timeout=limit) for process in processes]
    assert [process.returncode == 0 for process in processes] == [well, well], "\n".join(err[-3000:] for _, err in outputs)
    return [out if well else err for out, err in outputs]


def test_every_algorithm_on_two_processes():
    for out in in_two_processes("contract", limit=900):
        assert re.findall("agrees: (.*)", out) == KINDS


def test_a_streamed_run_of_two_processes_is_one_of_one_and_each_resumes_the_other(tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    whole = trained(store, SAMPLERS["uniform"], loss_fn=None)

    outputs = in_two_processes("run", tmp_path / "run", tmp_path / "store", 3, "host")
    assert outputs[0].split("loss:")[1] == outputs[1].split("loss:")[1]
    read = [set(map(int, re.search(r"read: \[(.*)\]", out)[1].split(", "))) for out in outputs]
    assert all(0 < len(clients) < len(SIZES) for clients in read)  # nobody read everything
    assert [record["loss"] for record in read_records(tmp_path / "run")] == pytest.approx([r["loss"] for r in whole.history[:3]], rel=1e-6)

    resumed = trained(
        softmax_data(), SAMPLERS["uniform"], loss_fn=None, rounds=4, out=tmp_path / "run", resume=True
    )  # one process, in memory
    assert len(resumed.history) == 4
    in_two_processes("run", tmp_path / "run", tmp_path / "store", 6, "device")
    records = read_records(tmp_path / "run")
    assert [record["loss"] for record in records] == pytest.approx([record["loss"] for record in whole.history], rel=1e-6)
    assert (tmp_path / "run" / "report.html").exists()


def test_what_only_the_leader_runs_into_ends_all(tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    with FileLock(tmp_path / ".run.lock"):
        leader, other = in_two_processes("run", tmp_path / "run", store.path, 3, "device", well=False, limit=100)
    assert "run is being written by another run" in leader and "the process that writes has failed: it says why" in other


def test_a_folder_that_is_not_the_same_for_all_is_refused(tmp_path):
    store = fl.data.save(tmp_path / "store", softmax_data())
    for errors in in_two_processes("run", tmp_path / "run-PROCESS", store.path, 3, "device", well=False, limit=100):
        assert "is not one folder that all processes see" in errors


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"process 0 cannot listen on port {port}"):
            fl.join_hosts(f"127.0.0.1:{port}", 2, 0)


def command(*arguments):
    """The command line's exit status and what it says."""
    line = [sys.executable, "-m", "fedjax_lite", "run", "configs/quickstart.toml", *arguments]
    process = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)
    return process.returncode, process.stderr


@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_that_never_joins_is_reported_with_the_time_out(process):
    status, errors = command("--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process", process, "--timeout", "1")
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


def test_outside_a_job_joining_says_what_to_give():
    status, errors = command("--hosts")
    assert status == 2 and "give coordinator, processes and process" in errors
