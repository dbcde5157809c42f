"""A round over two processes, each with the examples of its own clients, is that of one process."""

import re

import pytest
from contract import KINDS
from processes import in_two_processes

ONE = ["random at every place"]  # what is kept and drawn at every place
FIVE = ["median", "work scheduled", "adaptive rate", "uplink with state", "fedgkt"]


@pytest.mark.parametrize(
    "names", [ONE, pytest.param(FIVE, marks=pytest.mark.deep), pytest.param(KINDS, marks=pytest.mark.slow)], ids=["one", "five", "all"]
)
def test_algorithms_on_two_processes(names):
    for out in in_two_processes(",".join(names), limit=900):
        assert re.findall("agrees: (.*)", out) == names
