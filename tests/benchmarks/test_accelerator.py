"""`benchmarks/accelerator.py` tells what fails, goes on, keeps what it has, and keeps to its time; its rehearsal does every part."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import accelerator
import accelerator_conduct
import accelerator_jobs
import accelerator_worker
import correct
from accelerator_tables import tables

from fedjax_lite import aggregators

PARTS, SOME = tuple(accelerator.PARTS), ("emnist_cnn", "study", "lanes")  # the deeper tests rehearse some, the slow ones all
TITLES = {"correct": "Beside the CPU's numbers", "emnist_cnn": "Rounds", "study": "Study", "aggregators": "Aggregators", "lanes": "Lanes"}
ABSENT = "filelock", "tomli_w", "dp_accounting", "jax_privacy", "sklearn", "pytest", "hypothesis", "beartype"
PLAN = ["correct/a", "study/b", "study/c", "lanes/d"]
# A worker whose jobs do what is planned for them: the Python text of each, in order.
WORKER = """
import json, os, sys, time
plan, after = json.loads(os.environ["PLAN"]), sys.argv[sys.argv.index("--after") + 1]
say = lambda **line: print(json.dumps(line), flush=True)
names = list(plan)
say(plan=names)
for name in names[names.index(after) + 1 if after else 0 :]:
    say(begin=name)
    exec(plan[name])
"""
FINE = "say(job=name, norm=1.0)"


def run(tmp_path, monkeypatch, plan, left=lambda: 60.0, longest=60.0, worker=WORKER):
    """`conduct` of such a worker: its lines by job, and by what it was stopped."""
    monkeypatch.setenv("PLAN", json.dumps(plan))
    lines = {}
    with open(tmp_path / "log", "w") as log:
        command, take = [sys.executable, "-S", "-c", worker], lambda line: lines.setdefault(line["job"], line)
        stopped = accelerator_conduct.conduct(command, left, take, log, longest)
    assert list(plan) == sorted(lines, key=list(plan).index)
    return lines, stopped


def test_a_job_that_takes_the_process_with_it_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    died = "print('F0000 check failed', file=sys.stderr, flush=True); os._exit(3)"
    lines, stopped = run(tmp_path, monkeypatch, dict(zip(PLAN, (FINE, died, FINE, "print('hello', 7, sep='\\n'); " + FINE), strict=True)))
    assert lines.pop("study/b") == {"job": "study/b", "failed": "its process ended with status 3: F0000 check failed"}
    assert not stopped and all(line == {"job": name, "norm": 1.0} for name, line in lines.items())


@pytest.mark.deep
def test_a_job_that_hangs_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    lines, _ = run(tmp_path, monkeypatch, dict(zip(PLAN, ("time.sleep(60)", FINE, FINE, FINE), strict=True)), longest=3.0)
    assert lines["correct/a"]["failed"] == "not done after 3 s" and lines["lanes/d"]["norm"] == 1


def test_what_is_not_reached_in_time_is_listed(tmp_path, monkeypatch):
    plan = dict(zip(PLAN, (FINE, "time.sleep(60)", FINE, FINE), strict=True))
    heard = ["the plan", "correct/a begins", "correct/a", "study/b begins"]  # the time is asked for once before each line
    lines, _ = run(tmp_path, monkeypatch, plan, left=lambda: 60.0 if heard and heard.pop() else 0.0, longest=30.0)
    assert lines["study/b"]["skipped"] == accelerator_conduct.OVER
    assert [lines[name]["skipped"] for name in PLAN[2:]] == ["no time was left"] * 2


def test_a_worker_that_begins_nothing_is_not_started_again(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="nothing could be begun: its process ended with status 1: ValueError: no package"):
        run(tmp_path, monkeypatch, {}, worker="raise ValueError('no package')")
    with pytest.raises(SystemExit, match="no accelerator"):
        run(tmp_path, monkeypatch, {}, worker='print(\'{"refused": "no accelerator"}\')')


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_keeps_what_it_has(tmp_path, number):
    plan = dict(zip(PLAN, ("say(job=name, failed='OSError: no')", "time.sleep(60)", FINE, FINE), strict=True))
    program = f"import sys; sys.path.append({str(ROOT / 'benchmarks')!r})\nimport accelerator\n"
    program += f"sys.exit(accelerator.main(['--out', {str(tmp_path / 'out.jsonl')!r}], [sys.executable, '-S', '-c', {WORKER!r}]))"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ | {"PLAN": json.dumps(plan)}
    )
    first = json.loads(process.stdout.readline())
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert process.returncode == 1 and lines[0] == first == {"job": "correct/a", "failed": "OSError: no"}
    assert [line["job"] for line in lines] == PLAN and {line["skipped"] for line in lines[1:]} == {f"by {number.name}"}
    table = (tmp_path / "out.md").read_text()
    assert table in said and "| correct/a | OSError: no |" in table and f"| lanes/d | by {number.name} |" in table


def working(monkeypatch, todo, left=lambda: 1000.0, clock=None):
    """The lines of `work`; jobs are (name, what it returns or raises, seconds that it takes)."""
    now, lines = [0.0], []
    monkeypatch.setattr(accelerator_worker.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(accelerator_worker, "say", lambda line: None)

    def job(name, result, seconds):
        def perform():
            now[0] += seconds
            if isinstance(result, Exception):
                raise result
            return result

        return accelerator_jobs.Job(name, perform)

    accelerator_worker.work([job(*each) for each in todo], lambda: left() - now[0], lambda **line: lines.append(line))
    return {line["job"]: line for line in lines}


def test_a_job_begins_only_if_it_would_end_in_time(monkeypatch):
    guess = accelerator.PARTS["study"]
    todo = [("machine", {}, 1), ("study/long", {}, 50), ("study/again", {}, 1), ("correct/short", {}, 5), ("lanes/first", {}, 1)]
    lines = working(monkeypatch, todo, left=lambda: 1 + guess + 50 - guess + 20)  # 71: after the study's first job, 20 are left
    assert {name for name, line in lines.items() if "skipped" in line} == {"study/again", "lanes/first"}
    assert lines["study/again"]["skipped"] == "takes about 50 s, and 20 s were left"
    assert lines["lanes/first"]["skipped"] == f"takes about {accelerator.PARTS['lanes']} s, and 15 s were left"


def test_a_job_that_fails_is_told_by_its_first_line_and_the_next_goes_on(monkeypatch):
    todo = [("correct/a", ValueError("out of memory\nat length"), 1), ("correct/b", {"norm": 1}, 1)]
    lines = working(monkeypatch, todo)
    assert lines["correct/a"]["failed"] == "ValueError: out of memory" and lines["correct/b"]["norm"] == 1
    monkeypatch.setattr(accelerator_worker, "answers", lambda: False)
    assert list(working(monkeypatch, todo)) == ["correct/a"]  # for a fresh process to go on behind it


def test_every_part_is_planned_in_its_order_and_in_miniature():
    for size in (accelerator_jobs.FULL, accelerator_jobs.MINIATURE):
        names = [job.name for job in accelerator_jobs.jobs(size)]
        assert list(dict.fromkeys(name.split("/")[0] for name in names)) == ["machine", *accelerator.PARTS]
        assert len(set(names)) == len(names)
        assert [name for name in names if name.startswith("correct/aggregator")] == [f"correct/aggregator {n}" for n in correct.AGGREGATORS]
    assert len(correct.KINDS) == 6 and set(correct.KINDS) <= set(correct.ALGORITHMS)


def test_without_a_cpu_beside_the_accelerator_correctness_is_left_out(monkeypatch):
    monkeypatch.setattr(accelerator_jobs.jax, "devices", lambda *names: (_ for _ in ()).throw(RuntimeError("Unknown backend cpu")))
    (job,) = accelerator_jobs.correct(7)
    assert job.run() == {"skipped": accelerator_jobs.NO_CPU}


@pytest.mark.deep
def test_two_devices_are_compared(monkeypatch):
    monkeypatch.setitem(correct.AGGREGATORS, "mean", aggregators.mean())
    devices = correct.jax.devices()
    compare = dict(correct.comparisons(devices[2], devices[1], 5))["aggregator mean"]
    assert compare()["agrees"]
    placed = []
    monkeypatch.setattr(correct, "compiled", lambda fn, *operands: (lambda *given: placed.append(given[0]["w"].device) or given[0], 0.0))
    monkeypatch.setattr(
        correct, "words", lambda stack: {name: np.asarray(x) * (1 + 1e-3 * (x.device == devices[2])) for name, x in stack.items()}
    )
    line = compare()
    assert set(placed) == {devices[2], devices[1]}
    assert not line["agrees"] and 1e-4 < line["difference"] < 2e-3


def test_distance():
    whole = np.array([1.0, -4.0, np.nan, np.inf])
    assert correct.distance(whole, whole) == 0
    np.testing.assert_allclose(correct.distance(whole + np.array([0.1, 0, 0, 0]), whole), 0.1 / 4)
    np.testing.assert_allclose(correct.distance(np.array([1e-7]), np.zeros(1)), 1e-7 / correct.SMALL)
    assert correct.distance(np.array([np.nan]), np.ones(1)) == correct.distance(np.ones(1), np.array([np.inf])) == np.inf
    assert correct.distance(-whole, whole) == np.inf and correct.distance(np.zeros(0), np.zeros(0)) == 0


ROUND = dict(
    precision="float32", clients_a_second=12345.6, gflops=2000.0, matmul_peak=8000.0, share=0.25, useful=0.9, compile_seconds=3.0,
    memory_gb=1.0, peak_memory_gb=2.0, loss=0.5, seconds=0.08,
)  # fmt: skip


def test_tables():
    compared = dict(tolerance=1e-4, agrees=True)
    text = tables([
        dict(job="correct/algorithm a", difference=1e-6, **compared),
        dict(job="correct/aggregator b", difference=2e-6, **compared),
        dict(job="correct/aggregator c", difference=0.1, tolerance=1e-4, agrees=False),
        dict(job="emnist_cnn/1", workload="emnist_cnn", clients=1000, width=444, **ROUND),
        dict(job="workloads/1", workload="mlp", clients=100, width=100, **ROUND),
        dict(job="lanes/1", workload="emnist_cnn", clients=1000, width=16, **ROUND),
        dict(job="lanes/2", failed="RuntimeError: a | b"),
        dict(job="study/1", skipped="no time was left"),
    ])  # fmt: skip
    assert "(float32, tolerance 1e-04 of" in text
    assert "| 2 agree, the furthest correct/aggregator b | 2e-06 |\n| correct/aggregator c DIFFERS | 0.1 |\n" in text
    row = "| emnist_cnn | 1000 | float32 | {} | 0.08 | 12,346 | 2 | 8 | 0.25 | 0.9 | 0.5 | 3 | 1 | 2 |\n"
    rounds, lanes = text.split("### Lanes\n")
    assert row.format(444) in rounds and "| mlp |" in rounds
    assert row.format(16) + row.format(444) in lanes and "| mlp |" not in lanes  # the default stands among the numbers tried
    assert "| lanes/2 | RuntimeError: a \\| b |" in text and "| study/1 | no time was left |" in text
    assert "Study" not in text and tables([]) == ""


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out", "results.md"], "--out must end in .jsonl, got results.md"),
        (["--minutes", "0"], "--minutes must be more than 0, got 0"),
        (["--only", "speed"], "invalid choice: 'speed'"),
    ],
)
def test_arguments_that_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit):
        accelerator.main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.deep
def test_every_aggregator_takes_messages_of_full_size():
    for name in correct.AGGREGATORS:
        few = correct.POPULATION if name in correct.NOISE_OF_CLIENTS else accelerator_jobs.FULL.coordinates
        fn, operands_fn = correct.aggregator(name, few)
        assert correct.jax.eval_shape(fn, *operands_fn())[0]["w"].shape == ((few - 1) // 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [SOME, PARTS], ids=["some", "all"])
def test_the_rehearsal_does_its_parts_with_few_packages(parts, tmp_path):
    """As where nothing is installed but what the program itself needs."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))")
    out = tmp_path / "out.jsonl"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", "import filelock"], env=environment, capture_output=True).returncode
    options = ["--rehearse", "--minutes", "20", "--only", *parts, "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks/accelerator.py"), *options]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + out.with_suffix(".log").read_text()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    planned = [job.name for job in accelerator_jobs.jobs(accelerator_jobs.MINIATURE)]
    assert [line["job"] for line in lines] == [name for name in planned if name.split("/")[0] in ("machine", *parts)]
    assert not [line for line in lines if "failed" in line or "skipped" in line]
    assert all(line["peak_memory_gb"] > 0 for line in lines)
    assert [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")] == lines
    table = out.with_suffix(".md").read_text()
    assert table == tables(lines) and table in result.stdout
    for part, title in TITLES.items():
        assert (f"### {title}" in table) == (part in parts)
