"""Real processes, one device each, that talk over the loopback."""

import socket
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).parent / "one_of_two.py"


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
