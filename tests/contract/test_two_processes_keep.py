"""A round over two processes, each with the examples of its own clients, is that of one process."""

import re

import pytest
from contract.groups import KINDS
from processes import in_two_processes

SIX = ["random at every place", "median", "work scheduled", "adaptive rate", "uplink with state", "fedgkt"]


@pytest.mark.parametrize(
    "names", [pytest.param(SIX, marks=pytest.mark.deep), pytest.param(KINDS, marks=pytest.mark.slow)], ids=["six", "all"]
)
def test_algorithms_on_two_processes(names):
    for out in in_two_processes(",".join(names), limit=900):
        assert re.findall("agrees: (.*)", out) == names
