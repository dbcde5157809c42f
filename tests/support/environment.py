"""The environment that all processes of a run of the tests share: XLA's flags, and where compiled programs are kept."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

# Eight devices find sharding mistakes. Tests spend their time compiling, not running, so programs are compiled with few optimisations, and
# in one piece: the compiler's threads cost a fifth more CPU seconds than they save here, where both cores have a worker.
# AVX has no fused multiply-add, with which the last bit of a result would depend on what is compiled into one kernel.
WANTED = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_max_isa=AVX",
)
SETTLED = "FEDJAX_LITE_TESTS"  # set for the processes that the first one starts
CACHE = "FEDJAX_LITE_TEST_CACHE"  # the folder of compiled programs that is kept between runs; "off" for none
DEFAULT_CACHE, MOST = ".cache/tests", 2**30  # bytes
# jax writes a program in place, so another process may read half of it. It then compiles its own, and says so in a warning.
HALF_WRITTEN = "ignore:Error reading persistent compilation cache entry"


def settle(root: Path):
    """Settle it, if this is the first process; what undoes it at the end.

    Raises:
        RuntimeError: if jax does not start, with what it said.
    """
    if SETTLED in os.environ:
        return lambda: None
    users, kept = os.environ.get("XLA_FLAGS", ""), os.environ.get(CACHE, root / DEFAULT_CACHE)
    folder = Path(tempfile.mkdtemp(prefix="fedjax_lite-tests-") if kept == "off" else kept)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = " ".join((users, *known(WANTED, users)))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), HALF_WRITTEN)))
    os.environ[SETTLED] = "settled"
    for name in ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"):  # this process has imported jax already
        jax.config.update(name.lower(), os.environ[name])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return (lambda: shutil.rmtree(folder, ignore_errors=True)) if kept == "off" else (lambda: forget_the_oldest(folder))


def known(wanted: tuple[str, ...], users: str = "") -> tuple[str, ...]:
    """Those of the wanted flags that the installed XLA knows, tried in another process: it ends one that is given another.

    Raises:
        RuntimeError: if jax does not start with these either, beside the user's own flags.
    """
    complaint = _start(users, wanted)
    if unknown := re.findall(r"--\w+", next((line for line in complaint.splitlines() if "Unknown flag" in line), "")):
        wanted = tuple(flag for flag in wanted if flag.split("=")[0] not in unknown)
        complaint = _start(users, wanted)
    if complaint:
        raise RuntimeError(f"jax does not start with XLA_FLAGS={users!r}:\n{complaint}")
    return wanted


def _start(users, wanted):
    """What a process says in which jax does not start; nothing where it does."""
    environment = os.environ | {"XLA_FLAGS": " ".join((users, *wanted))}
    tried = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True, text=True)
    return (tried.stderr or f"exit status {tried.returncode}") if tried.returncode else ""


def forget_the_oldest(folder, most=MOST):
    """Remove the programs that were written first, until no more than `most` bytes are kept."""
    for file in sorted(folder.glob("*"), key=lambda file: file.stat().st_mtime, reverse=True):
        most -= file.stat().st_size
        if most < 0:
            file.unlink()
