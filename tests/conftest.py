"""Strict numerics for every test: rank promotion raises, warnings are errors, eight CPU devices to find sharding mistakes.

Tests spend their time compiling, not running: programs are compiled with few optimisations, and once for all processes of a session.
AVX has no fused multiply-add, with which the last bit of a result would depend on what is compiled into one kernel."""

import atexit
import os
import shutil
import tempfile

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=AVX"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # whoever starts the session; its workers find it set
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fedjax_lite-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
jax.devices()  # started here, or the first test of the command line would decide how many there are


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """One worker gets all tests of a file that names no smaller groups, and with them the programs that they share."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))


def pytest_runtest_teardown(item, nextitem):
    """Forget the compiled programs where there are many, rather between groups: each takes several of the memory mappings that a process
    may have (65530 on Linux), and the compiler crashes where they end."""
    group, following = (one and one.get_closest_marker("xdist_group") for one in (item, nextitem))
    if mappings() > (15000 if group != following else 40000):
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
