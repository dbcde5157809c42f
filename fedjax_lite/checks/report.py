"""The report of a checker: a row for each property."""

from typing import NamedTuple

from fedjax_lite.report.table import in_columns


class Row(NamedTuple):
    """A property, its verdict, and the evidence."""

    property: str
    holds: str  # "yes", "no", "not applicable", or "refused": the rule raised its own ValueError
    required: bool  # True: the contract requires the property; False: the row is for information
    evidence: str  # a number, or the first line of an error


class Report(NamedTuple):
    """The properties that a checker tried; `print` shows a table.

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
    breakdown: int | None  # how many far-away messages of `clients` the rule withstood; None if not measured

    @property
    def broken(self) -> list[str]:
        """The required properties that do not hold."""
        return [row.property for row in self.rows if row.required and row.holds == "no"]

    @property
    def ok(self) -> bool:
        """Whether the contract is kept: at least one required property holds, and none is broken."""
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
        if self.broken:
            end = "breaks the contract: " + ", ".join(self.broken)
        elif self.ok:
            end = "keeps the contract"
        else:
            end = f"not shown: it refuses {self.clients} clients; check it with another number of clients"
        return "\n".join([*in_columns(table), end])
