"""What a checker found: a row a property."""

from typing import NamedTuple


class Row(NamedTuple):
    """One property, whether it holds, and what shows it."""

    property: str
    holds: str  # "yes", "no", "not applicable", or "refused": the rule raised its own ValueError
    required: bool  # by the contract; the others are said for information
    evidence: str  # a number, or the first line of an error


class Report(NamedTuple):
    """What `checks.aggregator` found; `print` shows it as a table.

    >>> report = Report(11, (Row("order of clients does not matter", "no", True, "largest difference 0.7"),), None)
    >>> report.ok, report.holds("order of clients does not matter")
    (False, 'no')
    >>> print(report)
    property                          contract  holds  evidence
    order of clients does not matter  required  no     largest difference 0.7
    breaks the contract: order of clients does not matter
    """

    clients: int
    rows: tuple[Row, ...]
    breakdown: int | None  # how many far-away messages of `clients` it withstood; None if that could not be measured

    @property
    def broken(self) -> list[str]:
        """The required properties that do not hold."""
        return [row.property for row in self.rows if row.required and row.holds == "no"]

    @property
    def ok(self) -> bool:
        """Whether the contract is kept: some required property was seen to hold and none not to."""
        return not self.broken and any(row.required and row.holds == "yes" for row in self.rows)

    def holds(self, property: str) -> str:
        """The verdict on one property.

        Raises:
            KeyError: if there is no such property.
        """
        return {row.property: row.holds for row in self.rows}[property]

    def __str__(self) -> str:
        table = [("property", "contract", "holds", "evidence")]
        table += [(row.property, "required" if row.required else "", row.holds, row.evidence) for row in self.rows]
        widths = [max(len(line[i]) for line in table) for i in range(3)] + [0]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
        if self.broken:
            end = "breaks the contract: " + ", ".join(self.broken)
        elif self.ok:
            end = "keeps the contract"
        else:
            end = f"not shown: it refuses {self.clients} clients; check it with another number of clients"
        return "\n".join([*lines, end])
