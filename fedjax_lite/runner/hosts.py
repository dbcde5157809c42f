"""More than one host: a process on each runs the same program, and their devices form one set (`jax.distributed`)."""

import socket
import threading
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ["join_hosts"]

LONGEST = 10**6  # seconds, the largest timeout


def join_hosts(coordinator: str | None = None, processes: int | None = None, process: int | None = None, *, timeout: float = 300) -> None:
    """Join the processes of a job, before each uses jax in another way. `jax.devices()` are then the devices of all processes.

    Args:
        coordinator: "host:port" of process 0, which listens there. None, as for the next two: SLURM, GKE, Open MPI or a TPU pod tell jax.
        processes: the number of processes.
        process: the number of this process, from 0.
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
    # jax ends the whole process where its own timeout passes: a thread joins with a longer timeout, and is waited for with this one.
    errors: list[Exception] = []

    def initialize():
        try:
            jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(timeout) + 3600)
        except Exception as error:
            errors.append(error)

    jax.config.update("jax_enable_preemption_service", False)  # the service would catch SIGTERM
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
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise ValueError(f"coordinator: process 0 cannot listen on port {port} ({error.strerror}): give another port") from error


def leads() -> bool:
    """Return whether this process is the leading process, which alone writes and prints."""
    return jax.process_index() == 0


def agreed(flag: bool) -> bool:
    """Return whether `flag` is True in at least one process; all processes must call this, and get the same answer."""
    return bool(multihost_utils.process_allgather(flag).any()) if jax.process_count() > 1 else flag


def common(value: int) -> int:
    """Return the leading process's `value` in all processes, which must all call this."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else value


def check_same(value: str) -> None:
    """Refuse a job whose processes differ in `value`, a description of their data, models, keys and settings."""
    if jax.process_count() > 1 and len(set(multihost_utils.process_allgather(np.uint32(zlib.crc32(value.encode()))).tolist())) > 1:
        raise ValueError("the processes have different data, models, keys or settings: start all with the same configuration and files")


def by_leader(fn: Callable[[], Any]) -> None:
    """Call `fn` in the leading process; if `fn` fails there, raise in all processes, so that none waits for ever."""
    failed = None
    if leads():
        try:
            fn()
        except Exception as error:
            failed = error
    if agreed(failed is not None):
        raise failed or OSError("the process that writes has failed: it says why")


def wait_for_all(place: str) -> None:
    """Return when all processes have reached `place`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)
