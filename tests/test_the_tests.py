"""The tests' own machinery: flags that XLA doesn't know, what is said of costs, what is kept between runs, lowest versions."""

import os
import subprocess
import sys
import warnings
from collections import Counter

import costs
import environment
import lowest
import pytest
from conftest import ROOT


@pytest.mark.deep
def test_flags_that_xla_does_not_know_are_left_out():
    assert environment.known(("--xla_cpu_max_isa=AVX", "--xla_no_such_flag=1")) == ("--xla_cpu_max_isa=AVX",)


@pytest.mark.deep
def test_a_run_that_can_not_start_says_why():
    """Were the flag met by the process that runs the tests, it would end without a word: pytest has its output."""
    environ = {name: value for name, value in os.environ.items() if name != environment.SETTLED} | {"XLA_FLAGS": "--xla_no_such_flag=1"}
    command = [sys.executable, "-m", "pytest", "tests/test_structure.py", "-n", "2"]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert ended.returncode == 4 and "jax does not start with XLA_FLAGS='--xla_no_such_flag=1'" in ended.stderr
    assert "Unknown flag in XLA_FLAGS: --xla_no_such_flag=1" in ended.stderr


HALF = """
import pathlib, sys
import jax

jax.jit(lambda x: x + 1)(1.0)
for file in pathlib.Path(sys.argv[1]).iterdir():
    file.write_bytes(file.read_bytes()[:20])
jax.clear_caches()
print(jax.jit(lambda x: x + 1)(1.0))
"""


@pytest.mark.deep
def test_a_program_that_another_process_has_half_written_is_compiled_without_a_word(tmp_path):
    environ = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", HALF, tmp_path], env=environ, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "2.0\n", "") and list(tmp_path.iterdir())
    aloud = subprocess.run([sys.executable, "-W", "always", "-c", HALF, tmp_path], env=environ, capture_output=True, text=True)
    heard = next(line for line in aloud.stderr.splitlines() if "UserWarning" in line)
    warnings.warn(heard.split("UserWarning: ")[1], UserWarning, stacklevel=1)  # what pytest makes an error of others


def test_costs_are_told_by_file_the_dearest_first():
    lines = list(costs.table({"a.py": 1.0, "b.py": 98.0, "c.py": 0.25, "d.py": 0.75}, Counter({"a.py": 3, "b.py": 2, "c.py": 5})))
    assert [line.split() for line in lines[1:]] == [
        ["98.0", "98.0%", "2", "b.py"],
        ["1.0", "1.0%", "3", "a.py"],
        ["0.8", "0.8%", "0", "d.py"],
        ["0.2", "0.2%", "5", "1", "files", "below", "0.5%", "each"],
        ["100.0", "100.0%", "10", "in", "all"],
    ]


def test_the_programs_written_first_are_forgotten(tmp_path):
    for age, name in enumerate(("new", "older", "oldest")):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    environment.forget_the_oldest(tmp_path, 20)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "older"]


def test_every_requirement_has_a_lowest_version():
    project = {"dependencies": ["jax>=0.10.2"], "optional-dependencies": {"test": ["pytest>=9,<9.2"]}}
    assert list(lowest.constraints(project)) == ["jax==0.10.2", "pytest==9"]
