"""The names of a population's clients: writers, roles, people, files."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fedjax_lite.refuse import short

__all__ = ["Names", "checked_names", "in_order", "to_fit"]


class Names(tuple[str, ...]):
    """A client's name for each row. Part of what a compiled program is found by, so its hash is taken once."""

    def __hash__(self) -> int:
        if not hasattr(self, "_hash"):
            self._hash = super().__hash__()
        return self._hash

    def __eq__(self, other: Any) -> bool:
        return self is other or super().__eq__(other)

    def __ne__(self, other: Any) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"Names({len(self)} clients: {', '.join(self[:3])}{', ...' if len(self) > 3 else ''})"


def checked_names(names: Any, population: int) -> Names:
    """Return clients' names.

    Raises:
        ValueError: for another number of them, what is no text, and a name that two clients have.
    """
    names = Names(names)
    if len(names) != population:
        raise ValueError(f"names: {len(names)} names for {population} clients: give one a client")
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"names must be text, got {wrong[0]!r}: write str(name)")
    if len(set(names)) < population:
        name, number = Counter(names).most_common(1)[0]
        raise ValueError(f"names: {number} clients are called {name!r}: give each another name")
    return names


def to_fit(names: Sequence[str] | None, fit_on: Any) -> list[bool]:
    """Return of each client called `names` whether it is in `fit_on`, the names of those that something is fitted to.

    Raises:
        ValueError: for clients without names, what is no list of names or empty, and a name that no client has.

    >>> to_fit(["ann", "bob"], ["bob"])
    [False, True]
    """
    if names is None:
        raise ValueError("fit_on is for clients that have names: leave it out, or leave partition out")
    if isinstance(fit_on, str) or not isinstance(fit_on, Sequence) or not len(fit_on):
        raise ValueError(f"fit_on must be a list of clients' names, got {fit_on!r}")
    chosen = set(fit_on)
    if strangers := chosen - set(names):
        raise ValueError(f"fit_on: {sorted(map(str, strangers))[0]!r} is no client; there are {short(', '.join(names))}")
    return [name in chosen for name in names]


def in_order(names: Iterable[str]) -> list[str]:
    """Sort the names of clients: by number where all are whole numbers, else as text.

    >>> in_order(["10", "9"]), in_order(["f10", "f9"])
    (['9', '10'], ['f10', 'f9'])
    """
    names = list(names)
    if not all(name.isascii() and name.isdigit() for name in names):
        return sorted(names)
    return sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
