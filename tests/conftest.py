"""Strict numerics for every test: rank promotion raises, warnings are errors, eight CPU devices to find sharding mistakes."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import costs
import environment
import jax
import pytest

ROOT = Path(__file__).parent.parent
collect_ignore = [] if find_spec("torch") else ["support/torch_twins.py"]  # its examples would be looked for
ROOMS = "algorithms/optimisation", "algorithms/personal", "models/networks"  # whose examples are whole runs, or large
DEEPER = [ROOT / "fedjax_lite" / room for room in ROOMS]


def pytest_configure(config):
    """Settle the environment, or say why not while pytest still shows it, and start jax: else the first test of the command line would
    decide how many devices there are."""
    try:
        config.add_cleanup(environment.settle(ROOT))
    except RuntimeError as error:
        raise pytest.UsageError(str(error)) from None
    config.addinivalue_line("filterwarnings", environment.HALF_WRITTEN)
    jax.devices()
    gc.set_threshold(50_000)  # tracing makes many objects that stay: by default a fourteenth of the CPU seconds goes into looking at them
    config.pluginmanager.register(counted := costs.Costs(), "costs")
    config.pluginmanager.register(Forgetful(counted), "forgetful")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """One worker gets all tests of a file that names no smaller groups, and with them the programs that they share; examples are quick and
    deep, those of `DEEPER` deep alone."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("deep")
            if item.path.parent not in DEEPER or item.path.stem in ("fedavg", "pieces", "adaptive"):
                item.add_marker("quick")
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))


class Forgetful:
    """Forgets the compiled programs where there are many, rather between groups: each takes several of the memory mappings that a process
    may have (65530 on Linux), and the compiler crashes where they end. To count them takes milliseconds."""

    def __init__(self, counted):
        self.counted, self.looked = counted, 0

    def pytest_runtest_teardown(self, item, nextitem):
        if self.counted.programs < self.looked + 100:
            return
        self.looked = self.counted.programs
        group, following = (one and one.get_closest_marker("xdist_group") for one in (item, nextitem))
        if mappings() > (30000 if group != following else 45000):
            jax.clear_caches()


def mappings():
    """How many memory mappings this process has; where that can't be told, enough to forget after every group."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 2**15


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    """Double precision, for comparison with an oracle beyond rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    for folder in (os.environ.get("FEDJAX_LITE_DATA"), ROOT.parent / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("no real data: set FEDJAX_LITE_DATA to a folder with femnist_leaf/, mnist_idx/, ...")


@pytest.fixture(scope="module")
def coarse_accounting():
    """Epsilons that are compared with each other alone, in a fraction of the time."""
    import accounting  # here: it needs an extra

    with accounting.coarse():
        yield
