"""`benchmarks/compare.py` matches cases, tells ratios with their noise, and ends with a status that a script can read."""

import doctest
import json
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import compare

ROW = {"benchmark": "round_time", "workload": "mlp", "clients": 100, "loss": 0.25, "compile_seconds": 9.0, "jax": "0.10.2"}


@pytest.fixture
def compared(tmp_path, capsys):
    def run(a, b, *options):
        files = [tmp_path / "A.jsonl", tmp_path / "B.jsonl"]
        for file, lines in zip(files, (a, b), strict=True):
            file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        status = compare.main([*map(str, files), *options])
        return status, capsys.readouterr()

    return run


def row(seconds, **others):
    return ROW | {"seconds": seconds} | others


@pytest.mark.parametrize(("b", "status"), [(1.0, 0), (1.1, 0), (1.11, 1), (0.2, 0)])
def test_a_case_above_the_threshold_is_slower(compared, b, status):
    found, said = compared([row(1.0)], [row(b)])
    assert found == status and said.out.splitlines()[-1] == f"{status} of 1 slower than 1.1 times"
    assert compared([row(1.0)], [row(b)], "--threshold", "1.2")[0] == 0


def test_the_ratio_is_of_medians_and_its_range_of_extremes(compared):
    a, b = [1.0, 1.2, 3.0], [2.4, 1.8]  # medians 1.2 and 2.1, ratios from 1.8 / 3 to 2.4 / 1
    status, said = compared([row(x) for x in a], [row(x) for x in b])
    assert status == 1 and "1.2  2.1  1.75   0.60-2.40" in said.out


def test_cases_are_told_apart_by_settings_and_not_by_machines_or_results(compared):
    a = [row(1.0, device="x", loss=0.3), row(1.0, workload="softmax")]
    b = [row(1.0, device="y", devices=8, jax="0.11", rounds=7, loss=0.4), row(1.0, workload="mlp", clients=10), {"seconds": 1.0}]
    status, said = compared(a, b)
    assert status == 0 and "0 of 1 slower" in said.out
    assert [line.split(" ", 2)[2] for line in said.out.splitlines() if line.startswith("only ")] == [
        "round_time workload=softmax clients=100 seconds",
        "?  seconds",
        "round_time workload=mlp clients=10 seconds",
    ]


def test_a_rate_is_a_time_turned_round_and_what_compiling_takes_is_left_out(compared):
    a = {"benchmark": "clock", "table_events_a_second": 3000}
    status, said = compared([a], [a | {"table_events_a_second": 1500, "compile_seconds": 1.0}])
    assert status == 1 and "2.00" in said.out and "compile" not in said.out


def test_tables_between_the_lines_are_passed_over(compared):
    assert compared(["", "| a | 1 s |", row(1.0)], [row(1.0)])[0] == 0


@pytest.mark.parametrize(
    ("b", "complaint"),
    [
        ([], "no line has a time"),
        (["{nonsense"], "line 1: no JSON"),
        ([row(0.0)], "line 1: seconds must be a positive number, got 0.0"),
        ([row("1")], "got '1'"),
        ([row(float("nan"))], "got nan"),
    ],
)
def test_what_cannot_be_compared_is_bad_input(compared, b, complaint):
    status, said = compared([row(1.0)], b)
    assert status == 2 and complaint in said.err and not said.out


def test_files_without_a_common_case_are_bad_input(compared):
    status, said = compared([row(1.0)], [row(1.0, workload="softmax")])
    assert status == 2 and "no case in common" in said.err


@pytest.mark.parametrize("threshold", ["0", "-1", "nan", "inf", "x"])
def test_a_threshold_is_a_positive_number(compared, threshold):
    with pytest.raises(SystemExit) as ended:
        compared([row(1.0)], [row(1.0)], f"--threshold={threshold}")
    assert ended.value.code == 2


def test_its_examples():
    assert doctest.testmod(compare) == (0, 4)


def test_it_is_a_script(tmp_path):
    script = [sys.executable, str(ROOT / "benchmarks" / "compare.py")]
    ended = subprocess.run([*script, str(tmp_path / "A"), str(tmp_path / "B")], capture_output=True, text=True)
    assert ended.returncode == 2 and "No such file" in ended.stderr
