"""Several hosts: one process on each runs the same program, and together they are one set of devices (`jax.distributed`)."""

import socket
import threading
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ["join_hosts"]

LONGEST = 10**6  # seconds


def join_hosts(coordinator: str | None = None, processes: int | None = None, process: int | None = None, *, timeout: float = 300) -> None:
    """Join the processes of a job; call it in each of them before anything else of jax. `jax.devices()` are then those of all.

    Args:
        coordinator: "host:port" of process 0, which listens there. None, with the two next: as SLURM, GKE, Open MPI or a TPU pod tell it.
        processes: how many there are.
        process: which of them this is, from 0.
        timeout: seconds to wait for the others.

    Raises:
        TimeoutError: if not all have joined by then.
        ValueError: for arguments that do not fit, a port that is taken, or where jax finds no job to join.

    >>> import fedjax_lite as fl
    >>> fl.join_hosts("first-host:1234", processes=2, process=2)
    Traceback (most recent call last):
    ...
    ValueError: process must be in [0, processes), got process=2 of processes=2
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if len({value is None for value in given.values()}) > 1:
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise ValueError(f"give coordinator, processes and process, or none of them where a cluster tells jax: {missing} is missing")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"process must be in [0, processes), got process={process} of processes={processes}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"coordinator must be host:port, got {coordinator!r}")
    if not 0 < timeout <= LONGEST:
        raise ValueError(f"timeout must be seconds from above 0 to {LONGEST:,}, got {timeout}")
    if coordinator is not None and process == 0:
        _check_free(int(coordinator.rpartition(":")[2]))
    # jax ends the whole process where it fails to join, so its own limit must lie behind this one, and it must be waited for.
    errors: list[Exception] = []

    def initialize():
        try:
            jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(timeout) + 3600)
        except Exception as error:
            errors.append(error)

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    joining = threading.Thread(target=initialize, daemon=True)
    joining.start()
    joining.join(timeout)
    if joining.is_alive():
        where = f"of {processes} processes at {coordinator}" if coordinator else "of the job's processes"
        raise TimeoutError(
            f"not all {where} joined within {timeout:g} s (timeout): start the others, see that they reach process 0, or wait longer"
        )
    if errors:
        raise ValueError(f"this process could not join a job ({errors[0]}): give coordinator, processes and process") from errors[0]


def _check_free(port: int) -> None:
    """Refuse a port that is taken: jax would end the whole process there."""
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("", port))
        except OSError as error:
            raise ValueError(f"coordinator: process 0 cannot listen on port {port} ({error.strerror}): give another port") from error


def leads() -> bool:
    """Whether this is the process that writes and prints, of several that do the same."""
    return jax.process_index() == 0


def agreed(flag: bool) -> bool:
    """Whether the flag is up in any process: the same answer in all, who must all ask."""
    return bool(multihost_utils.process_allgather(flag).any()) if jax.process_count() > 1 else flag


def common(value: int) -> int:
    """The leading process's number, in all."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else value


def check_same(value: str) -> None:
    """Refuse a job whose processes were started with different things, of which `value` is a description."""
    if jax.process_count() > 1 and len(set(multihost_utils.process_allgather(np.uint32(zlib.crc32(value.encode()))).tolist())) > 1:
        raise ValueError("the processes have different data, models, keys or settings: start all with the same configuration and files")


def by_leader(fn: Callable[[], Any]) -> None:
    """Call it in the leading process; if it fails there, fail in all, so that none waits for ever."""
    failed = None
    if leads():
        try:
            fn()
        except Exception as error:
            failed = error
    if agreed(failed is not None):
        raise failed or OSError("the process that writes has failed: it says why")


def wait_for_all(place: str) -> None:
    """Go on when all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)
