"""Faults that the tests must catch: each a small change of the package's text such as a refactoring could bring.

They are planted one at a time by `tests/test_faults.py`. A fault that is caught nowhere asks for a test, not for another fault.
"""

from faults import algorithms, clocks, commands, data, formats, messages, models, personal, results, rounds, runs

ROOMS = (rounds, algorithms, personal, messages, clocks, data, formats, models, runs, results, commands)
FAULTS = tuple(fault for room in ROOMS for fault in room.FAULTS)
