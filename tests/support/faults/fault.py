"""One fault."""

from typing import NamedTuple


class Fault(NamedTuple):
    """What is wrong with it, and where it shows."""

    name: str
    file: str  # in the package
    where: str  # the test files and folders that should catch it, apart by spaces
    old: str  # stands once in the file
    new: str
