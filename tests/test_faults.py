"""Faults planted in a copy of the package, one at a time: each must fail a test of `make test`, or a deeper one, that passes without it.

`python -m pytest -m slow -rP tests/test_faults.py` says which test catches what. It takes long: two processes a fault.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from faults import FAULTS

COPIED = "fedjax_lite tests configs docs benchmarks README.md CONTRIBUTING.md pyproject.toml Makefile".split()
FAILED, PASSED = 1, 0  # pytest's exit statuses; higher ones are errors before any test


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of all that the tests need."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_tests(checkout, *which):
    """Exit status and output of the copy's own tests, up to the first that fails."""
    # Without bytecode, which is told apart by its source's size and second only, as a fault and what it replaces may not be.
    ours = {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *which]
    without = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")
    environment = {name: value for name, value in os.environ.items() if name not in without} | ours
    done = subprocess.run(line, cwd=checkout, env=environment, capture_output=True, text=True, timeout=3600)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_caught(checkout, fault):
    file = checkout / "fedjax_lite" / fault.file
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace(fault.old, fault.new), encoding="utf-8")
    places = [f"tests/{place}" for place in fault.where.split()]
    try:
        status, output = run_tests(checkout, *places)
        if status != FAILED:
            status, output = run_tests(checkout, "-m", "deep", *places)
    finally:
        file.write_text(before, encoding="utf-8")
    caught = re.search(r"^FAILED (.+?)(?: - .*)?$", output, re.MULTILINE)
    assert status == FAILED and caught, f"{fault.file}: nothing in {fault.where} caught that {fault.name}\n{output[-3000:]}"
    assert run_tests(checkout, "-m", "not slow", caught[1])[0] == PASSED, f"{caught[1]} fails without any fault"
    print(f"{fault.file}: {fault.name}\n    caught by {caught[1]}")


def test_faults_can_be_planted_and_every_folder_has_one():
    package = ROOT / "fedjax_lite"
    for fault in FAULTS:
        assert (package / fault.file).read_text(encoding="utf-8").count(fault.old) == 1, f"{fault.file} holds not once: {fault.old}"
        assert fault.new != fault.old and all((ROOT / "tests" / place.partition("::")[0]).exists() for place in fault.where.split()), fault
    folders = {str(path.parent.relative_to(package)) for path in package.rglob("*.py")}
    assert folders == {str(Path(fault.file).parent) for fault in FAULTS}
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
